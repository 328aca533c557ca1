/* Upload images as soon as they are dropped, pasted or chosen, and report progress. The form works
   without this file. */

const MAX_PREVIEWS = 12;

document.querySelectorAll(".upload").forEach(prepare);

export function prepare(form) {
  const area = form.querySelector(".drop");
  const upload = { form, request: null };

  form.querySelectorAll(".file").forEach((input) => {
    input.addEventListener("change", () => {
      const files = [...input.files];
      input.value = ""; /* so that the same file can be chosen again */
      send(upload, files);
    });
  });
  document.addEventListener("paste", (event) => take(upload, event.clipboardData, event));
  /* The whole window accepts a drop: one that misses the area must not leave the page. */
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("drag-over");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) area.classList.remove("drag-over");
  });
  document.addEventListener("drop", (event) => {
    area.classList.remove("drag-over");
    take(upload, event.dataTransfer, event);
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop(upload);
  });
  form.querySelector(".stop").addEventListener("click", () => {
    stop(upload);
    form.querySelector(".file").focus();
  });
  /* Back from a result, the browser may restore the page as it was left: reload it. */
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) window.location.reload();
  });
  return upload;
}

function take(upload, transfer, event) {
  const files = transfer ? [...transfer.files] : [];
  if (files.length > 0) {
    event.preventDefault();
    send(upload, files);
  } else if (event.type === "drop") {
    fail(upload, "That is not a file. Save the image first, then drop it.");
  }
}

export function send(upload, files) {
  if (files.length === 0) return;
  reset(upload);
  const problem = findProblem(upload.form, files);
  if (problem) {
    fail(upload, problem);
    return;
  }
  const request = new XMLHttpRequest();
  const named = files.length === 1 ? files[0].name : `${files.length} images`;
  upload.request = request;
  showPreviews(upload.form, files);
  say(upload.form, `Uploading ${named} …`);
  reportProgress(upload, request, named);
  request.open("POST", upload.form.action);
  request.send(body(upload.form, files));
}

/* Why these files need not be sent at all; the server checks each of them anyway. */
function findProblem(form, files) {
  const most = Number(form.dataset.files);
  const bytes = Number(form.dataset.bytes);
  const accepted = form.querySelector("#accepted").textContent;
  if (files.length > most) {
    return `${files.length} images selected; at most ${most} can be uploaded at a time.`;
  }
  if (files.length === 1 && files[0].size > bytes) {
    return `${files[0].name} is too large. ${accepted}`;
  }
  if (files.reduce((sum, file) => sum + file.size, 0) > most * bytes) {
    return `These files are too large in total. ${accepted}`;
  }
  return "";
}

function body(form, files) {
  const data = new FormData();
  data.append("csrf_token", form.querySelector("[name=csrf_token]").value);
  files.forEach((file) => data.append("image", file, file.name));
  return data;
}

function reportProgress(upload, request, named) {
  const { form } = upload;
  const began = Date.now();
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    const tenths = Math.floor((10 * loaded) / total);
    if (Date.now() - began > 1000 && tenths > 0 && tenths < 10) {
      say(form, `Uploading ${named}: ${10 * tenths}\u2009%`);
    }
  });
  request.upload.addEventListener("load", () => say(form, `Classifying ${named} …`));
  request.addEventListener("load", () => finish(upload, request));
  request.addEventListener("error", () => {
    fail(upload, "The connection to the server was lost. Try again.");
  });
}

/* Go to the result's page, or report what went wrong. */
function finish(upload, request) {
  const address = new URL(request.responseURL);
  if (request.status === 200 && address.pathname.includes("/results/")) {
    upload.request = null;
    window.location.assign(address);
    return;
  }
  const page = new DOMParser().parseFromString(request.responseText, "text/html");
  const token = page.querySelector("[name=csrf_token]");
  if (token) upload.form.querySelector("[name=csrf_token]").value = token.value;
  const message = page.querySelector(".message p");
  fail(upload, message ? message.textContent : `The server returned an error (${request.status}).`);
}

function stop(upload) {
  if (!upload.request) return;
  reset(upload);
  say(upload.form, "Cancelled.");
}

function fail(upload, sentence) {
  reset(upload);
  say(upload.form, sentence);
  upload.form.querySelector(".status-text").classList.add("failed");
}

/* Abort the upload in progress, if any, and remove its previews. */
function reset(upload) {
  const { form, request } = upload;
  upload.request = null;
  if (request) request.abort();
  form.querySelector(".previews").replaceChildren();
  setBusy(form, false);
}

function setBusy(form, busy) {
  form.querySelector(".previews").hidden = !busy;
  form.querySelector(".stop").hidden = !busy;
  form.querySelector(".mark").toggleAttribute("hidden", busy);
}

function showPreviews(form, files) {
  const list = form.querySelector(".previews");
  const pictures = files.filter((file) => file.type.startsWith("image/")).slice(0, MAX_PREVIEWS);
  list.classList.toggle("one", files.length === 1);
  list.replaceChildren(...pictures.map(preview));
  setBusy(form, true);
}

function preview(file) {
  const item = document.createElement("li");
  const picture = document.createElement("img");
  picture.alt = "";
  picture.width = picture.height = 96;
  const address = URL.createObjectURL(file);
  picture.addEventListener("load", () => URL.revokeObjectURL(address));
  picture.addEventListener("error", () => item.remove());
  picture.src = address;
  item.append(picture);
  return item;
}

function say(form, sentence) {
  const status = form.querySelector(".status-text");
  status.classList.remove("failed");
  if (status.textContent !== sentence) status.textContent = sentence;
}
