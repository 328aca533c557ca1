/* Explore: classes are found while a name is typed. Without this file the form does it. */

const field = document.querySelector(".find [name=q]");
if (field) findWhileTyping(field);

/* As the server compares names: without accents and capitals, every word somewhere in them. */
function folded(text) {
  return text.normalize("NFKD").replace(/\p{Mn}/gu, "").toUpperCase().toLowerCase();
}

function findWhileTyping(field) {
  const classes = [...document.querySelectorAll("[data-class]")];
  const names = classes.map((one) => folded(one.querySelector("span").textContent));
  const said = document.querySelector(".side .said");
  field.addEventListener("input", () => {
    const words = folded(field.value).split(/\s+/);
    const found = names.map((name) => words.every((word) => name.includes(word)));
    classes.forEach((one, n) => { one.hidden = !found[n]; });
    said.textContent = sentence(field.value.trim(), found.filter(Boolean).length, found.length);
  });
}

function sentence(typed, found, all) {
  if (!typed) return "";
  return found ? `${found.toLocaleString("en")} of ${all.toLocaleString("en")} classes` : `No class has “${typed}” in its name.`;
}
