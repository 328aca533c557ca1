/* The webcam: started when asked for, and pictures of it, reduced before they are sent. */

const SIDE = 320; /* pixels of the shorter side: the network sees 256 */
const QUALITY = 0.88;

/* Starts the camera in a <video>; throws an Error that says in words why it cannot be. */
export async function startCamera(video) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("Browsers give the camera only to pages opened by https or on localhost. Choose files instead.");
  }
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch (error) {
    throw new Error(explain(error));
  }
  await video.play();
}

function explain(error) {
  if (error.name === "NotAllowedError") return "The browser was not allowed to use the camera. Allow it for this page, or choose files.";
  if (error.name === "NotFoundError") return "No camera was found. Choose files instead.";
  return "The camera cannot be used; perhaps another program has it.";
}

export function stopCamera(video) {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
}

/* Returns what the camera shows now, as a JPEG. */
export async function takePicture(video) {
  const scale = Math.min(1, SIDE / Math.min(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(scale * video.videoWidth);
  canvas.height = Math.round(scale * video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", QUALITY); });
}
