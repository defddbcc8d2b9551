// Photos go to POST translate one by one, a few at a time; the server batches those of equal size.

import { offerCamera } from "./camera.js";

const PARALLEL = 4;
const SUFFIXES = { "image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/tiff": ".tif", "image/avif": ".avif", "image/gif": ".gif" };
const element = (id) => document.getElementById(id);
const chosen = (group) => document.querySelector(`input[name="${group}"]:checked`).value;

/** Each photo: {file, url, outputs: [{seed, url, type, lost, stale}], selected (its output), error, width, height}. */
const photos = [];
let models = [], limits = {}, current = null, seed = 0;
let waiting = [], running = 0, stop = new AbortController();

// Translating

/** Translate all photos (or one) as the settings say; what is on the screen stays until its successor arrives. */
function translate(some = photos) {
  if (some === photos) {
    stop.abort();
    stop = new AbortController();
    waiting = [];
  }
  const count = Number(chosen("count"));
  for (const photo of some) {
    photo.error = null;
    while (photo.outputs.length > count + 1) release(photo.outputs.pop());
    photo.selected = Math.min(photo.selected, count);
    for (let k = 0; k <= count; k++) {
      photo.outputs[k] = { ...photo.outputs[k], seed: k ? seed + k - 1 : null, stale: true };
      waiting.push({ photo, output: photo.outputs[k], signal: stop.signal });
    }
  }
  start();
  show();
}

function start() {
  while (running < PARALLEL && waiting.length) {
    const next = waiting.findIndex((task) => task.photo === current);
    const [task] = waiting.splice(Math.max(next, 0), 1);
    running++;
    run(task).finally(() => { running--; start(); });
  }
}

async function run({ photo, output, signal }) {
  try {
    const { blob, lost } = await post(photo.file, output.seed, signal);
    if (signal.aborted) return;
    release(output);
    Object.assign(output, { url: URL.createObjectURL(blob), type: blob.type, lost, stale: false });
    if (output.seed === null) announce(`${photo.file.name}: translated to ${domains().to}`);
  } catch (error) {
    if (signal.aborted) return;
    photo.error = error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message;
    waiting = waiting.filter((task) => task.photo !== photo);
    announce(`${photo.file.name}: ${photo.error}`);
  }
  show();
}

async function post(file, seed, signal) {
  if (file.size > limits.bytes) throw new Error(`The file is larger than ${limits.bytes / 1e6} MB; make the photo smaller`);
  const query = new URLSearchParams({ direction: chosen("direction"), strength: element("strength").value / 100, model: element("model").value, format: element("format").value, detail: element("detail").value });
  if (seed !== null) { query.set("samples", 1); query.set("seed", seed); }
  for (;;) {
    const response = await fetch(`translate?${query}`, { method: "POST", body: file, signal });
    if (response.ok) return { blob: await response.blob(), lost: response.headers.get("X-Not-Kept") };
    if (response.status !== 429) throw new Error((await response.json()).error);
    await new Promise((resolve) => setTimeout(resolve, 1000 * (response.headers.get("Retry-After") || 1)));
  }
}

function release(output) {
  if (output.url) URL.revokeObjectURL(output.url);
}

// Photos

function add(files) {
  const added = [...files].map((file) => ({ file, url: URL.createObjectURL(file), outputs: [], selected: 0, error: null }));
  if (!added.length) return;
  photos.push(...added);
  current = added[0];
  announce(added.length === 1 ? `${current.file.name}: translating` : `${added.length} photos: translating`);
  translate(added);
  element("photos").scrollLeft = element("photos").scrollWidth;
}

function remove(photo) {
  const index = photos.indexOf(photo);
  photos.splice(index, 1);
  waiting = waiting.filter((task) => task.photo !== photo);
  [photo, ...photo.outputs].forEach(release);
  current = photos[index] ?? photos[index - 1] ?? null;
  announce(`${photo.file.name}: removed`);
  show();
  (current ? element("photos").children[photos.indexOf(current)] : document.querySelector(".welcome .choose")).focus();
}

// What is on the screen

function show() {
  element("welcome").hidden = photos.length > 0;
  element("studio").hidden = photos.length === 0;
  if (!current) return;
  const output = current.outputs[current.selected], busy = output.stale && !current.error;
  const compare = element("compare");
  compare.classList.toggle("busy", busy);
  if (!output.url) compare.classList.remove("unshown");
  compare.classList.toggle("first", !output.url && !current.error);
  compare.classList.toggle("failed", current.error !== null);
  compare.setAttribute("aria-busy", busy);
  setImage(element("before"), current.url, `Original: ${current.file.name}`);
  setImage(element("after"), output.url, `Translated to ${domains().to}: ${current.file.name}`);
  element("before-label").textContent = `${domains().from} · original`;
  element("after-label").textContent = `${domains().to} · translated`;
  element("failure").hidden = current.error === null;
  element("reason").textContent = current.error ?? "";
  element("name").textContent = current.file.name;
  element("lost").textContent = output.lost ? `Not kept: ${output.lost}.` : "";
  showDetails();
  showThumbs(element("photos"), photos, (photo) => ({ url: photo.outputs[0].url ?? photo.url, label: photo.file.name, pressed: photo === current, busy: photo.outputs.some((o) => o.stale), failed: photo.error }), (photo) => { current = photo; });
  showThumbs(element("variations"), current.outputs, (o) => ({ url: o.url ?? current.url, label: o.seed === null ? "Without noise" : `Variation ${current.outputs.indexOf(o)}`, pressed: o === output, busy: o.stale, failed: current.error }), (o) => { current.selected = current.outputs.indexOf(o); });
  element("variations-row").hidden = current.outputs.length < 2 || current.error !== null;
  element("reroll").hidden = current.outputs.length < 2;
  showDownload(output, busy);
}

function showDetails() {
  const image = element(element("compare").classList.contains("alone") ? "after" : "before");
  const { naturalWidth: width, naturalHeight: height } = image;
  const busy = element("compare").classList.contains("busy");
  element("details").textContent = busy ? "translating…" : width && !current.error ? `${width} × ${height}` : "";
}

function setImage(image, url, alt) {
  image.alt = alt;
  image.hidden = !url;
  if (url && image.src !== url) image.src = url;
}

/** Update a row of buttons with images, keeping the buttons that are there, and with them the focus. */
function showThumbs(row, items, describe, select) {
  while (row.children.length > items.length) row.lastChild.remove();
  items.forEach((item, k) => {
    const { url, label, pressed, busy, failed } = describe(item);
    const button = row.children[k] ?? row.appendChild(newThumb());
    setImage(button.firstChild, url, "");
    const state = failed ? ", failed" : busy ? ", translating" : "";
    button.setAttribute("aria-label", label + state);
    button.setAttribute("aria-pressed", pressed);
    button.className = `thumb${failed ? " failed" : busy ? " busy" : ""}`;
    button.onclick = () => { select(item); show(); };
  });
}

function newThumb() {
  const button = document.createElement("button"), image = new Image();
  button.type = "button";
  button.append(image);
  image.addEventListener("load", () => image.classList.remove("broken"));
  image.addEventListener("error", () => image.classList.add("broken")); // formats that the browser can't show
  return button;
}

function showDownload(output, busy) {
  const link = element("download"), ready = output.url && !busy && !current.error;
  link.setAttribute("aria-disabled", !ready);
  if (ready) {
    link.href = output.url;
    link.download = fileName(current);
  } else {
    link.removeAttribute("href");
  }
  element("download-all").hidden = photos.length < 2;
  element("download-all").disabled = photos.some((photo) => photo.outputs[photo.selected].stale && !photo.error);
}

function fileName(photo) {
  const output = photo.outputs[photo.selected], stem = photo.file.name.replace(/\.[^.]*$/, "");
  return `${stem}-${domains().to}${output.seed === null ? "" : `-${output.seed + 1}`}${SUFFIXES[output.type] ?? ""}`;
}

async function downloadAll() {
  for (const photo of photos.filter((photo) => !photo.error)) {
    const link = document.createElement("a");
    link.href = photo.outputs[photo.selected].url;
    link.download = fileName(photo);
    link.click();
    await new Promise((resolve) => setTimeout(resolve, 200)); // browsers drop downloads that come at once
  }
}

function announce(text) {
  element("status").textContent = text;
}

// Settings

function domains() {
  const { a, b } = models.find((model) => model.name === element("model").value).domains;
  return chosen("direction") === "a2b" ? { from: a, to: b } : { from: b, to: a };
}

function choices(id, group, options, selected) {
  const labels = options.map(([value, text]) => {
    const label = document.createElement("label"), input = document.createElement("input"), span = document.createElement("span");
    Object.assign(input, { type: "radio", name: group, value, checked: value === selected });
    span.textContent = text;
    label.className = "choice";
    label.append(input, span);
    return label;
  });
  document.querySelector(`#${id} .choices`).replaceChildren(...labels);
}

function showModel() {
  const { domains: { a, b }, size } = models.find((model) => model.name === element("model").value);
  element("detail-hint").textContent = `This model learned from photos of ${size} pixels.`;
  choices("directions", "direction", [["a2b", `${a} → ${b}`], ["b2a", `${b} → ${a}`]], document.querySelector('input[name="direction"]:checked')?.value ?? "a2b");
  element("title").textContent = `${a} ⇄ ${b}`;
  element("title").setAttribute("aria-label", `Translate photos between ${a} and ${b}`);
  document.title = `${a} ⇄ ${b}: translate photos`;
  element("invitation").textContent = `Photos of ${a} become ${b}, or the other way round, each at its own size.`;
}

async function load() {
  ({ models, limits } = await (await fetch("models")).json());
  element("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
  element("model-field").hidden = models.length < 2;
  choices("counts", "count", [["0", "Off"], ["2", "2"], ["4", "4"], ["8", "8"]], "0");
  showModel();
  const local = ["localhost", "[::1]"].includes(location.hostname) || location.hostname.startsWith("127.");
  element("privacy").textContent = local ? "Photos stay on this computer." : `Photos go to ${location.hostname} alone, which does not keep them.`;
}

function listen() {
  element("model").addEventListener("change", () => { showModel(); translate(); });
  element("directions").addEventListener("change", () => translate());
  element("counts").addEventListener("change", () => translate());
  element("format").addEventListener("change", () => translate());
  element("detail").addEventListener("change", () => translate());
  element("strength").addEventListener("change", () => translate());
  element("strength").addEventListener("input", () => { element("strength-value").textContent = `${element("strength").value} %`; });
  element("reroll").addEventListener("click", () => { seed += Number(chosen("count")); translate(); });
  element("again").addEventListener("click", () => translate([current]));
  element("remove").addEventListener("click", () => remove(current));
  element("download-all").addEventListener("click", downloadAll);
  element("split").addEventListener("input", showSplit);
  document.querySelectorAll(".choose").forEach((button) => button.addEventListener("click", () => element("files").click()));
  element("files").addEventListener("change", ({ target }) => { add(target.files); target.value = ""; });
  offerCamera(add);
  for (const image of [element("before"), element("after")]) image.addEventListener("load", showShape);
  for (const [id, mark] of [["before", "alone"], ["after", "unshown"]]) { // formats that browsers don't show: TIFF, HEIC
    element(id).addEventListener("load", () => element("compare").classList.remove(mark));
    element(id).addEventListener("error", () => element("compare").classList.add(mark));
  }
  addEventListener("paste", (event) => add(event.clipboardData.files));
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
  addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("dragging"); add(event.dataTransfer.files); });
}

function showShape({ target }) {
  element("compare").style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
  showDetails();
}

function showSplit() {
  const { value } = element("split");
  element("compare").style.setProperty("--split", `${value}%`);
  element("split").setAttribute("aria-valuetext", `${value} % original`);
}

try {
  await load();
  listen();
  showSplit();
} catch {
  element("notice").textContent = "The server does not answer. Is it still running? Then reload this page.";
  element("notice").hidden = false;
}
