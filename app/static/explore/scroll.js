/* The next page's images, or classes, are appended when the end comes near. Behind it are real pages:
   the address always names the one in view, and the links at the end lead on from the last. */

const NEAR = "800px";
const AT_A_STRETCH = 20; /* pages that come by themselves; then the button is asked for more */
const SETTLED = 150; /* milliseconds without scrolling after which the place is noted */

const list = document.querySelector("[data-scroll]");
const area = document.querySelector(".more");
if (list) start();

function start() {
  const button = area.querySelector("button");
  number(list.children, list.dataset.page);
  returnToPlace();
  noteThePlace();
  button.addEventListener("click", () => {
    list.dataset.stretch = 0;
    append();
  });
  document.querySelector(".earlier a")?.addEventListener("click", async (event) => {
    event.preventDefault();
    const first = list.firstElementChild;
    await prepend();
    first.querySelector("a").focus({ preventScroll: true });
  });
  button.hidden = !nextLink();
  /* Not before the reader moves: until then what is on the page stays where it is. */
  for (const move of ["scroll", "wheel", "touchmove", "keydown"]) {
    window.addEventListener(move, watchTheEnd, { once: true, passive: true });
  }
}

function watchTheEnd() {
  if (area.watched) return;
  area.watched = true;
  new IntersectionObserver(([end]) => {
    area.near = end.isIntersecting;
    appendIfNear();
  }, { rootMargin: NEAR }).observe(area);
}

function appendIfNear() {
  const stretch = Number(list.dataset.stretch ?? 0);
  if (area.near && !area.failed && nextLink() && stretch < AT_A_STRETCH) append();
}

function nextLink() {
  return document.querySelector(".pages a[rel=next]");
}

async function append() {
  if (area.busy) return;
  const page = await fetched(nextLink().href, "Loading more …");
  if (!page) return;
  list.dataset.stretch = Number(list.dataset.stretch ?? 0) + 1;
  list.append(...fresh(page));
  document.querySelector(".pages").replaceWith(page.querySelector(".pages"));
  area.querySelector("button").hidden = !nextLink();
  tell();
  /* An end that stays in sight does not come into sight again. */
  setTimeout(() => {
    const { top } = area.getBoundingClientRect();
    area.near = top < window.innerHeight + parseInt(NEAR);
    appendIfNear();
  });
}

/* What was there stays where it is in the window. */
async function prepend() {
  const link = document.querySelector(".earlier a");
  const page = area.busy ? null : await fetched(link.href, "Loading earlier ones …");
  if (!page) return;
  const first = list.firstElementChild;
  const before = first.getBoundingClientRect().top;
  list.prepend(...fresh(page));
  const earlier = page.querySelector(".earlier a");
  if (earlier) link.href = earlier.href;
  else link.parentElement.remove();
  window.scrollBy(0, first.getBoundingClientRect().top - before);
  tell();
}

/* The page behind a link, or nothing: then it is said, and the button tries again. */
async function fetched(address, words) {
  const button = area.querySelector("button");
  area.busy = true;
  say(words);
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
    say("More could not be loaded.");
    return null;
  } finally {
    area.busy = false;
    button.removeAttribute("aria-disabled");
  }
}

/* What a page holds that is not here yet: the index may have changed between two pages. */
function fresh(page) {
  const other = page.querySelector("[data-scroll]");
  number(other.children, other.dataset.page);
  return [...other.children].filter((one) => !document.getElementById(one.id));
}

function number(children, page) {
  for (const one of children) one.dataset.page = page;
}

function tell() {
  const [shown, all] = [list.children.length, Number(list.dataset.total)];
  say(`${shown.toLocaleString("en")} of ${all.toLocaleString("en")} ${list.dataset.scroll} shown`);
  document.dispatchEvent(new Event("tiles"));
}

function say(words) {
  area.querySelector(".said").textContent = words;
}

/* The address follows what is in view, and the history remembers what was where in the window, so
   that the back button leads to the same place. */
function noteThePlace() {
  let timer = 0;
  history.scrollRestoration = "manual";
  window.addEventListener("scroll", () => {
    clearTimeout(timer);
    timer = setTimeout(() => note(firstInView()), SETTLED);
  }, { passive: true });
  /* What is clicked is what one comes back to. */
  list.addEventListener("click", (event) => {
    note([...list.children].find((one) => one.contains(event.target)));
  }, { capture: true });
}

function firstInView() {
  return [...list.children].find((one) => one.getBoundingClientRect().bottom > 0);
}

function note(seen) {
  if (!seen) return;
  const address = new URL(location);
  if (seen.dataset.page === "1") address.searchParams.delete("page");
  else address.searchParams.set("page", seen.dataset.page);
  history.replaceState({ id: seen.id, top: seen.getBoundingClientRect().top }, "", address);
}

/* Where the page alone is too short above or below, more of what was there comes first. */
async function returnToPlace() {
  const place = history.state;
  const seen = place?.id && document.getElementById(place.id);
  const off = () => seen.getBoundingClientRect().top - place.top;
  const reached = () => {
    window.scrollBy(0, off());
    return Math.abs(off()) < 1;
  };
  if (!seen || reached()) return;
  if (off() < 0 && document.querySelector(".earlier a")) await prepend();
  else if (nextLink()) await append();
  reached();
}
