/* On a result's page, a photo that is dropped or pasted is classified next. The form is only fetched
   then: a page that others may see needs no cookie. */

import { prepare, send } from "./classify.js";

const place = document.querySelector("[data-upload-from]");
let taken = false;

if (place) {
  document.addEventListener("paste", (event) => receive(event, event.clipboardData));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => receive(event, event.dataTransfer));
}

async function receive(event, transfer) {
  const files = [...(transfer?.files ?? [])];
  if (taken || files.length === 0) return;
  event.preventDefault();
  taken = true; /* From now on the form itself takes what is dropped. */
  try {
    const answer = await fetch(place.dataset.uploadFrom);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const form = document.adoptNode(page.querySelector(".upload"));
    place.replaceChildren(form);
    place.hidden = false;
    place.scrollIntoView({ block: "nearest" });
    send(prepare(form), files);
  } catch {
    /* The first page says why nothing can be classified. */
    window.location.assign(place.dataset.uploadFrom);
  }
}
