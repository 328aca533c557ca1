/* Refines the occlusion while one watches: first every third place, then the strips in which
   covering costs the label most. Without this script the coarse picture stays. */

const MAX_SHADE = 205;
const state = document.querySelector("[data-occlusion]");
const picture = document.getElementById("occlusion-shade");
if (state && picture) refine(state.dataset.occlusion, Number(state.dataset.parts));

async function refine(url, parts) {
  try {
    const coarse = await fetchPart(url, 0);
    const grid = spread(coarse, parts - 1);
    show(grid, coarse, 0, parts);
    for (const [done, part] of orderStrips(coarse, parts - 1).entries()) {
      const strip = await fetchPart(url, part);
      for (const cell of strip.cells) grid[cell.row * strip.side + cell.column] = cell.probability;
      show(grid, coarse, done + 1, parts);
    }
  } catch {
    state.textContent += " · refining stopped; reload to go on";
  }
}

async function fetchPart(url, part) {
  const response = await fetch(`${url}&part=${part}`);
  if (!response.ok) throw new Error(response.statusText);
  return response.json();
}

/* Each coarse cell stands for the cells around it until they are measured. */
function spread(coarse, count) {
  const grid = new Array(coarse.side ** 2);
  const step = coarse.side / count;
  for (const { row, column, probability } of coarse.cells) {
    const [top, left] = [row, column].map((at) => Math.floor(at / step) * step);
    for (let y = top; y < top + step; y += 1) {
      for (let x = left; x < left + step; x += 1) grid[y * coarse.side + x] = probability;
    }
  }
  return grid;
}

function orderStrips(coarse, count) {
  const step = coarse.side / count;
  const lowest = new Array(count).fill(1);
  for (const { row, probability } of coarse.cells) {
    const strip = Math.floor(row / step);
    lowest[strip] = Math.min(lowest[strip], probability);
  }
  return [...lowest.keys()].sort((a, b) => lowest[a] - lowest[b]).map((strip) => strip + 1);
}

function show(grid, { side, uncovered }, done, parts) {
  const lowest = Math.min(...grid);
  const most = uncovered - lowest;
  const canvas = document.createElement("canvas");
  canvas.width = side;
  canvas.height = side;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(side, side);
  grid.forEach((probability, at) => {
    const share = most > 0 ? Math.max(0, (uncovered - probability) / most) : 0;
    pixels.data[4 * at + 3] = Math.round(MAX_SHADE * (1 - share));
  });
  context.putImageData(pixels, 0, 0);
  canvas.toBlob((blob) => {
    const before = picture.getAttribute("href");
    picture.setAttribute("href", URL.createObjectURL(blob));
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  });
  const places = done + 1 === parts ? `${side} × ${side} places` : `${parts - 1} × ${parts - 1} places, refined in ${done} of ${parts - 1} strips`;
  const change = most > 0
    ? `covering the brightest lowers ${percent(uncovered)} to ${percent(lowest)}`
    : `covering no place lowers ${percent(uncovered)}`;
  state.textContent = `${places}; ${change}`;
}

function percent(share) {
  return `${(100 * share).toFixed(1)}\u2009%`;
}
