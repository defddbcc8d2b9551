"use strict";
for (const slider of document.querySelectorAll(".slider")) {
  const range = slider.querySelector("input"), label = slider.querySelector("output");
  const button = slider.querySelector("button"), images = [...slider.querySelectorAll("img")];
  let timer = 0;
  const show = () => {
    images.forEach((image, k) => {
      image.classList.toggle("shown", k === range.valueAsNumber);
      image.classList.toggle("left", k !== range.valueAsNumber);
    });
    label.textContent = "step " + Number(images[range.valueAsNumber].dataset.step).toLocaleString("en");
  };
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = "▶"; button.ariaLabel = "play"; };
  const advance = () => {
    if (range.valueAsNumber >= images.length - 1) return stop();
    range.value = range.valueAsNumber + 1;
    show();
  };
  range.addEventListener("input", () => { stop(); show(); });
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (range.valueAsNumber >= images.length - 1) { range.value = 0; show(); }
    button.textContent = "⏸";
    button.ariaLabel = "pause";
    timer = setInterval(advance, 300);
  });
  range.value = images.length - 1;
  show();
}
const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg"), cursor = chart.querySelector(".cursor"), step = chart.querySelector("output");
  const values = [...chart.querySelectorAll(".legend b")], last = values.map((value) => value.textContent);
  const lines = [...chart.querySelectorAll(".line, .dot")].map((line) => line.points ? [...line.points] :
    [{ x: Number(line.getAttribute("cx")), y: Number(line.getAttribute("cy")) }]);
  const back = ([start, end, low, high], at) => low + (at - start) / (end - start) * (high - low);
  const [x, y] = [svg.dataset.x, svg.dataset.y].map((axis) => axis.split(" ").map(Number));
  const leave = () => {
    cursor.style.visibility = "hidden";
    step.textContent = "";
    values.forEach((value, k) => { value.textContent = last[k]; });
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const near = lines.map((points) => points.reduce((a, b) => Math.abs(b.x - at) < Math.abs(a.x - at) ? b : a));
    const first = near.reduce((a, b) => Math.abs(b.x - at) < Math.abs(a.x - at) ? b : a);
    cursor.setAttribute("x1", first.x);
    cursor.setAttribute("x2", first.x);
    cursor.style.visibility = "visible";
    step.textContent = "step " + Math.round(back(x, first.x)).toLocaleString("en");
    near.forEach((point, k) => {
      const value = back(y, point.y);
      values[k].textContent = digits.format("log" in svg.dataset ? 10 ** value : value);
    });
  });
  svg.addEventListener("pointerleave", leave);
}
