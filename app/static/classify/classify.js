/* Images that are dropped, pasted or chosen are sent at once, and what happens is told in words.
   The form works without this file. */

const SHOWN = 12;

document.querySelectorAll(".upload").forEach(prepare);

function prepare(form) {
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
  /* The whole window takes the drop: one that misses the area must not leave the page. */
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) area.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    area.classList.remove("over");
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
  /* Back from the answer, a page kept by the browser is as it was left: make it fresh. */
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) window.location.reload();
  });
}

function take(upload, transfer, event) {
  const files = transfer ? [...transfer.files] : [];
  if (files.length > 0) {
    event.preventDefault();
    send(upload, files);
  } else if (event.type === "drop") {
    fail(upload, "That was not a file. Save the image first, then drop it.");
  }
}

function send(upload, files) {
  if (files.length === 0) return;
  leave(upload);
  const refusal = refused(upload.form, files);
  if (refusal) {
    fail(upload, refusal);
    return;
  }
  const request = new XMLHttpRequest();
  const named = files.length === 1 ? files[0].name : `${files.length} images`;
  upload.request = request;
  show(upload.form, files);
  say(upload.form, `Sending ${named} …`);
  follow(upload, request, named);
  request.open("POST", upload.form.action);
  request.send(body(upload.form, files));
}

/* Why these files need not be sent at all; the server looks at each of them anyway. */
function refused(form, files) {
  const most = Number(form.dataset.files);
  const bytes = Number(form.dataset.bytes);
  const accepted = form.querySelector("#accepted").textContent;
  if (files.length > most) {
    return `These are ${files.length} images; at most ${most} can be sent together.`;
  }
  if (files.length === 1 && files[0].size > bytes) {
    return `${files[0].name} is too large. ${accepted}`;
  }
  if (files.reduce((sum, file) => sum + file.size, 0) > most * bytes) {
    return `Together these are too large. ${accepted}`;
  }
  return "";
}

function body(form, files) {
  const data = new FormData();
  data.append("csrf_token", form.querySelector("[name=csrf_token]").value);
  files.forEach((file) => data.append("image", file, file.name));
  return data;
}

function follow(upload, request, named) {
  const { form } = upload;
  const began = Date.now();
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    const tenths = Math.floor((10 * loaded) / total);
    if (Date.now() - began > 1000 && tenths > 0 && tenths < 10) {
      say(form, `Sending ${named}: ${10 * tenths}\u2009%`);
    }
  });
  request.upload.addEventListener("load", () => say(form, `Looking at ${named} …`));
  request.addEventListener("load", () => arrive(upload, request));
  request.addEventListener("error", () => {
    fail(upload, "The connection to the server broke. Try again.");
  });
}

/* The answer has an address of its own; what is wrong is told here, and another can be tried. */
function arrive(upload, request) {
  const address = new URL(request.responseURL);
  if (request.status === 200 && address.pathname.includes("/results/")) {
    upload.request = null;
    window.location.assign(address);
    return;
  }
  const page = new DOMParser().parseFromString(request.responseText, "text/html");
  const token = page.querySelector("[name=csrf_token]");
  if (token) upload.form.querySelector("[name=csrf_token]").value = token.value;
  const said = page.querySelector(".message p");
  fail(upload, said ? said.textContent : `The server could not answer (${request.status}).`);
}

function stop(upload) {
  if (!upload.request) return;
  leave(upload);
  say(upload.form, "Stopped.");
}

function fail(upload, sentence) {
  leave(upload);
  say(upload.form, sentence);
  upload.form.querySelector(".said").classList.add("failed");
}

/* Let go of what is under way, if anything is, and of its pictures. */
function leave(upload) {
  const { form, request } = upload;
  upload.request = null;
  if (request) request.abort();
  form.querySelector(".previews").replaceChildren();
  mark(form, false);
}

function mark(form, busy) {
  form.querySelector(".previews").hidden = !busy;
  form.querySelector(".stop").hidden = !busy;
  form.querySelector(".mark").toggleAttribute("hidden", busy);
}

function show(form, files) {
  const list = form.querySelector(".previews");
  const pictures = files.filter((file) => file.type.startsWith("image/")).slice(0, SHOWN);
  list.classList.toggle("one", files.length === 1);
  list.replaceChildren(...pictures.map(preview));
  mark(form, true);
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
  const said = form.querySelector(".said");
  said.classList.remove("failed");
  if (said.textContent !== sentence) said.textContent = sentence;
}
