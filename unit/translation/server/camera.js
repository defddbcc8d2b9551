// A photo from the camera: of a phone by its own app, of a computer in a dialog.

const element = (id) => document.getElementById(id);

/** Let the buttons of class "shoot" take photos, which `take` gets as an array of files; hide them without a camera. */
export function offerCamera(take) {
  const phone = matchMedia("(pointer: coarse)").matches, computer = navigator.mediaDevices !== undefined; // only on https and localhost
  for (const button of document.querySelectorAll(".shoot")) {
    button.hidden = !phone && !computer;
    button.addEventListener("click", () => (phone ? element("camera").click() : open()));
  }
  element("camera").addEventListener("change", ({ target }) => {
    take([...target.files]);
    target.value = "";
  });
  element("shutter").addEventListener("click", async () => {
    take([await photograph(element("viewfinder"))]);
    element("booth").close();
  });
  element("leave").addEventListener("click", () => element("booth").close());
  element("booth").addEventListener("close", close);
}

async function open() {
  element("camera-error").hidden = true;
  element("shutter").disabled = true;
  element("booth").showModal();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 }, height: { ideal: 1080 } } });
    element("viewfinder").srcObject = stream;
    await element("viewfinder").play();
    if (!element("booth").open) close(); // it was left before the camera began
    element("shutter").disabled = false;
  } catch {
    element("camera-error").hidden = false;
  }
}

function close() {
  element("viewfinder").srcObject?.getTracks().forEach((track) => track.stop());
  element("viewfinder").srcObject = null;
}

async function photograph(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
  return new File([await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 })], `photo-${time}.jpg`, { type: "image/jpeg" });
}
