/* Infinite scrolling: the next page's images or classes are appended as the end comes near. The
   address always names the page in view, and the links at the end continue from the last one. */

const LOAD_MARGIN = "800px";
const MAX_AUTOMATIC_PAGES = 20; /* then the button loads more */
const SCROLL_PAUSE = 150; /* milliseconds without scrolling after which the position is saved */

const list = document.querySelector("[data-scroll]");
const area = document.querySelector(".load-more");
if (list) start();

function start() {
  const button = area.querySelector("button");
  numberItems(list.children, list.dataset.page);
  restorePosition();
  trackPosition();
  button.addEventListener("click", () => {
    list.dataset.automaticPages = 0;
    append();
  });
  document.querySelector(".previous-page a")?.addEventListener("click", async (event) => {
    event.preventDefault();
    const first = list.firstElementChild;
    await prepend();
    first.querySelector("a").focus({ preventScroll: true });
  });
  button.hidden = !nextLink();
  /* Only once the reader scrolls: until then the page keeps still. */
  for (const move of ["scroll", "wheel", "touchmove", "keydown"]) {
    window.addEventListener(move, watchEnd, { once: true, passive: true });
  }
}

function watchEnd() {
  if (area.watched) return;
  area.watched = true;
  new IntersectionObserver(([end]) => {
    area.near = end.isIntersecting;
    appendIfNear();
  }, { rootMargin: LOAD_MARGIN }).observe(area);
}

function appendIfNear() {
  const automaticPages = Number(list.dataset.automaticPages ?? 0);
  if (area.near && !area.failed && nextLink() && automaticPages < MAX_AUTOMATIC_PAGES) append();
}

function nextLink() {
  return document.querySelector(".pages a[rel=next]");
}

async function append() {
  if (area.busy) return;
  const page = await fetchPage(nextLink().href, "Loading more …");
  if (!page) return;
  list.dataset.automaticPages = Number(list.dataset.automaticPages ?? 0) + 1;
  list.append(...newItems(page));
  document.querySelector(".pages").replaceWith(page.querySelector(".pages"));
  area.querySelector("button").hidden = !nextLink();
  announceCount();
  /* The observer does not fire again while the end stays in view. */
  setTimeout(() => {
    const { top } = area.getBoundingClientRect();
    area.near = top < window.innerHeight + parseInt(LOAD_MARGIN);
    appendIfNear();
  });
}

/* Prepend the previous page without moving what is in view. */
async function prepend() {
  const link = document.querySelector(".previous-page a");
  const page = area.busy ? null : await fetchPage(link.href, "Loading previous page …");
  if (!page) return;
  const first = list.firstElementChild;
  const before = first.getBoundingClientRect().top;
  list.prepend(...newItems(page));
  const previous = page.querySelector(".previous-page a");
  if (previous) link.href = previous.href;
  else link.parentElement.remove();
  window.scrollBy(0, first.getBoundingClientRect().top - before);
  announceCount();
}

/* Fetch the page behind a link; on failure say so, and let the button try again. */
async function fetchPage(address, message) {
  const button = area.querySelector("button");
  area.busy = true;
  say(message);
  button.setAttribute("aria-disabled", "true");
  try {
    const answer = await fetch(address, { headers: { "X-Part": "images" } });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!page.querySelector("[data-scroll]")) throw new Error("another page");
    area.failed = false;
    button.textContent = "Load more";
    return page;
  } catch {
    area.failed = true;
    button.textContent = "Try again";
    button.hidden = false;
    say("Loading failed.");
    return null;
  } finally {
    area.busy = false;
    button.removeAttribute("aria-disabled");
  }
}

/* The items of a page that are not here yet: the index may have changed between two pages. */
function newItems(page) {
  const other = page.querySelector("[data-scroll]");
  numberItems(other.children, other.dataset.page);
  return [...other.children].filter((one) => !document.getElementById(one.id));
}

function numberItems(children, page) {
  for (const one of children) one.dataset.page = page;
}

function announceCount() {
  const [shown, all] = [list.children.length, Number(list.dataset.total)];
  say(`Showing ${shown.toLocaleString("en")} of ${all.toLocaleString("en")} ${list.dataset.scroll}`);
  document.dispatchEvent(new Event("tiles"));
}

function say(message) {
  area.querySelector(".status-text").textContent = message;
}

/* The address follows what is in view, and the history remembers its position, so that the back
   button returns to it. */
function trackPosition() {
  let timer = 0;
  history.scrollRestoration = "manual";
  window.addEventListener("scroll", () => {
    clearTimeout(timer);
    timer = setTimeout(() => savePosition(firstInView()), SCROLL_PAUSE);
  }, { passive: true });
  /* Return to what was clicked. */
  list.addEventListener("click", (event) => {
    savePosition([...list.children].find((one) => one.contains(event.target)));
  }, { capture: true });
}

function firstInView() {
  return [...list.children].find((one) => one.getBoundingClientRect().bottom > 0);
}

function savePosition(seen) {
  if (!seen) return;
  const address = new URL(location);
  if (seen.dataset.page === "1") address.searchParams.delete("page");
  else address.searchParams.set("page", seen.dataset.page);
  history.replaceState({ id: seen.id, top: seen.getBoundingClientRect().top }, "", address);
}

/* If the page is too short above or below, load more first. */
async function restorePosition() {
  const place = history.state;
  const seen = place?.id && document.getElementById(place.id);
  const off = () => seen.getBoundingClientRect().top - place.top;
  const reached = () => {
    window.scrollBy(0, off());
    return Math.abs(off()) < 1;
  };
  if (!seen || reached()) return;
  if (off() < 0 && document.querySelector(".previous-page a")) await prepend();
  else if (nextLink()) await append();
  reached();
}
