/* Sends photographs and says how far it is. The forms work without this file. */

document.querySelectorAll("form.sender").forEach((form) => {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const data = new FormData(form);
    /* collect.js adds what the camera took. */
    form.dispatchEvent(new CustomEvent("collect", { detail: data }));
    send(form, data);
  });
});

/* Leads to the page of the data set that was made, or says why none was. */
function send(form, data) {
  const bytes = [...data.values()].reduce((sum, one) => sum + (one.size ?? 0), 0);
  if (bytes > Number(form.dataset.bytes)) {
    say(form, `That is larger than ${Math.floor(form.dataset.bytes / 1e6)} MB.`);
    return;
  }
  const request = new XMLHttpRequest();
  const progress = form.querySelector("progress");
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  progress.hidden = false;
  say(form, "Sending …");
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    progress.value = loaded / total;
  });
  request.upload.addEventListener("load", () => {
    progress.removeAttribute("value");
    say(form, "Looking at each photograph …");
  });
  request.addEventListener("loadend", () => {
    button.disabled = false;
    progress.hidden = true;
    progress.value = 0;
    finish(form, request);
  });
  request.open("POST", form.action);
  request.send(data);
}

function finish(form, request) {
  if (request.status === 200) {
    form.dispatchEvent(new CustomEvent("sent"));
    window.location.assign(request.responseURL);
    return;
  }
  const page = new DOMParser().parseFromString(request.responseText, "text/html");
  const problem = page.querySelector(".problem") ?? page.querySelector(".message p");
  say(form, problem?.textContent.trim() || "The connection to the server was lost. Try again.");
}

function say(form, sentence) {
  form.querySelector(".status-text").textContent = sentence;
}
