/* Values under the pointer, the conv1 slider, and the selection of runs to compare. The pages work
   without this file. */

import { REPLACED } from "../shared/live.js";

function prepare(within) {
  within.querySelectorAll(".plot").forEach(showValuesAtPointer);
  within.querySelectorAll("[data-slider]").forEach(prepareSlider);
}

prepare(document);
prepareSelection();
document.addEventListener(REPLACED, (event) => prepare(event.target));

/* The table row of the epoch under the pointer */

function showValuesAtPointer(plot) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  line.setAttribute("class", "pointer");
  line.setAttribute("y2", "100%");
  line.setAttribute("visibility", "hidden");
  plot.append(line);
  const [first, last] = [Number(plot.dataset.first), Number(plot.dataset.last)];

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const epoch = Math.round(first + ((event.clientX - box.left) / box.width) * (last - first));
    const values = describeRow(plot.dataset.table, epoch);
    if (!values) return;
    const place = `${(100 * (epoch - first)) / (last - first)}%`;
    line.setAttribute("x1", place);
    line.setAttribute("x2", place);
    line.setAttribute("visibility", "visible");
    showValues(plot, values);
  });
  plot.addEventListener("pointerleave", () => {
    line.setAttribute("visibility", "hidden");
    showValues(plot, "");
  });
}

function describeRow(table, epoch) {
  const found = document.getElementById(table);
  const row = found?.querySelector(`[data-epoch="${epoch}"]`);
  if (!row) return "";
  const heads = [...found.querySelectorAll("thead th")];
  return [...row.cells].map((cell, n) => `${heads[n].textContent} ${cell.textContent}`).join(" · ");
}

function showValues(plot, values) {
  const line = plot.closest("section").querySelector("[data-values]");
  if (line) line.textContent = values;
}

/* The slider through conv1's pictures */

function prepareSlider(box) {
  const links = [...box.parentElement.querySelectorAll(".conv1-epochs a")];
  const [range, output, picture] = ["input", "output", "img"].map((name) => box.querySelector(name));
  const show = () => {
    const link = links[Number(range.value)];
    if (!link) return;
    output.textContent = link.dataset.epoch;
    range.setAttribute("aria-valuetext", `epoch ${link.dataset.epoch}`);
    picture.alt = `conv1 after epoch ${link.dataset.epoch}`;
    picture.src = link.href;
  };
  range.addEventListener("input", show);
  box.closest("details").addEventListener("toggle", show, { once: true });
  box.hidden = false;
}

/* Selecting runs to compare */

function prepareSelection() {
  const form = document.querySelector(".runs");
  if (!form) return;
  const max = Number(form.dataset.max);
  const countChecked = () => form.querySelectorAll("input:checked").length;
  const describe = (count) => {
    const hint = document.getElementById("selection");
    if (!hint) return;
    hint.textContent = count > max ? `${count} runs selected; at most ${max} can be compared.` : `Select 2–${max} runs.`;
  };
  form.addEventListener("change", () => describe(countChecked()));
  form.addEventListener("submit", (event) => {
    const count = countChecked();
    if (count >= 2 && count <= max) return;
    event.preventDefault();
    describe(count);
  });
}
