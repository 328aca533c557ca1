/* The canvas: points, names, the region, and what the keyboard points at. */

import { pixelOf } from "./map-dots.js";
import { DOT } from "./map-names.js";

const NARROW = 500;
const FAINT = 0.14;
const REGION = 0.1;
const CROSS = 9;

export function draw(context, scene) {
  const { dots, ratio } = scene;
  drawPoints(scene);
  dots.put(context);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (scene.ringed >= 0) drawRing(context, scene);
  drawNames(context, scene);
  if (scene.region) drawRegion(context, scene);
  if (scene.cursor) drawCursor(context, scene);
}

export const fontOf = (view) => `600 ${view.width < NARROW ? 11.5 : 13}px system-ui, sans-serif`;

/* A point's radius: less where there are many, more when magnified. */
export function radius(field, view) {
  const side = view.unit * view.scale;
  const alone = Math.min(Math.max((0.35 * side) / view.zoom / Math.sqrt(field.count), 1.6), 4);
  return alone * Math.min(view.zoom, 8) ** 0.45;
}

/* Only when they would look different from the last time. */
function drawPoints({ dots, field, view, ratio, colours, tokens, lit }) {
  const seen = [view.x, view.y, view.unit, view.width, ratio, lit, tokens.card, field.shown.join()].join();
  if (dots.seen === seen) return;
  dots.seen = seen;
  const paints = { colours: colours.map(pixelOf), ground: pixelOf(tokens.card), lit };
  dots.paint(field, view, ratio, radius(field, view), paints);
}

function drawRing(context, { field, view, ringed, colours, tokens }) {
  const [across, down] = [view.across(field.x[ringed]), view.down(field.y[ringed])];
  context.beginPath();
  context.arc(across, down, radius(field, view) + 2, 0, 2 * Math.PI);
  context.fillStyle = colours[field.numbers[ringed]];
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = tokens.ink;
  context.stroke();
}

function drawNames(context, { field, view, names, colours, tokens, lit }) {
  context.font = fontOf(view);
  context.textBaseline = "middle";
  context.lineJoin = "round";
  for (const { number, across, down } of names) {
    const { x, y, label } = field.classes[number];
    const [left, middle] = [view.across(x) + across, view.down(y) + down];
    context.globalAlpha = lit < 0 || lit === number ? 1 : FAINT;
    context.lineWidth = 4;
    context.strokeStyle = tokens.card;
    context.strokeText(label, left + DOT, middle);
    context.fillStyle = tokens.ink;
    context.fillText(label, left + DOT, middle);
    context.beginPath();
    context.arc(left + 4, middle, 4, 0, 2 * Math.PI);
    context.lineWidth = 3;
    context.stroke();
    context.fillStyle = colours[number];
    context.fill();
  }
  context.globalAlpha = 1;
}

function drawRegion(context, { view, region, tokens }) {
  const [left, top] = [view.across(region.left), view.down(region.top)];
  const [width, height] = [view.across(region.right) - left, view.down(region.bottom) - top];
  context.globalAlpha = REGION;
  context.fillStyle = tokens.link;
  context.fillRect(left, top, width, height);
  context.globalAlpha = 1;
  context.lineWidth = 1.5;
  context.strokeStyle = tokens.link;
  context.strokeRect(left, top, width, height);
}

function drawCursor(context, { cursor: [across, down], tokens }) {
  for (const [width, colour] of [[4, tokens.card], [2, tokens.ink]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(across - CROSS, down);
    context.lineTo(across + CROSS, down);
    context.moveTo(across, down - CROSS);
    context.lineTo(across, down + CROSS);
    context.stroke();
  }
}
