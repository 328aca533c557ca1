/* Draws the canvas: points, labels, the region and the keyboard's cursor. */

import { toPixelValue } from "./dot_renderer.js";
import { DIMMED } from "./points.js";

const NARROW = 500;
const DIMMED_SHARE = 0.14;
const REGION_ALPHA = 0.1;
const CURSOR_ARM = 9;
const HALO = 6;
const DOTS_TIME = 8; /* milliseconds of a frame, at most, for the points */
const [LEADER_GAP, LEADER_RISE] = [3, 9]; /* pixels from a label's text to the end of its line */
const THUMBNAIL = 44;

/* Whether all points are drawn as the scene has them; if not, it has to be drawn again. */
export function drawScene(context, scene) {
  const { ratio } = scene;
  const complete = drawDots(context, scene);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  drawThumbnails(context, scene);
  if (scene.hovered >= 0) drawRing(context, scene);
  drawLabels(context, scene);
  if (scene.region) drawRegion(context, scene);
  if (scene.cursor) drawCursor(context, scene);
  return complete;
}

export const labelFont = (viewport) => `600 ${viewport.width < NARROW ? 11.5 : 13}px system-ui, sans-serif`;

/* A dot's radius: smaller where there are many points, larger when zoomed in. */
export function dotRadius(points, viewport) {
  const side = viewport.pixelsPerUnit * viewport.scale;
  const base = Math.min(Math.max((0.35 * side) / viewport.zoom / Math.sqrt(points.count), 1.6), 4);
  return base * Math.min(viewport.zoom, 8) ** 0.45;
}

function drawDots(context, { dots, points, viewport, ratio, colours, theme }) {
  const view = {
    left: viewport.toPixelX(0) * ratio,
    top: viewport.toPixelY(0) * ratio,
    unit: viewport.pixelsPerUnit * ratio,
  };
  const radius = dotRadius(points, viewport) * ratio;
  const style = { radius, colours: colours.map(toPixelValue), background: toPixelValue(theme.card) };
  const deadline = performance.now() + DOTS_TIME;
  dots.start(points, view, style);
  let complete = dots.continueUntil(deadline);
  /* What was finished may be for the view of some frames ago. */
  if (complete) dots.start(points, view, style);
  complete &&= dots.continueUntil(deadline);
  dots.paint(context, view, theme.card);
  return complete;
}

function drawRing(context, { points, viewport, hovered, colours, theme }) {
  const [x, y] = [viewport.toPixelX(points.x[hovered]), viewport.toPixelY(points.y[hovered])];
  context.beginPath();
  context.arc(x, y, dotRadius(points, viewport) + 2, 0, 2 * Math.PI);
  context.fillStyle = colours[points.colourIndex[hovered]];
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = theme.ink;
  context.stroke();
}

/* Names on a halo, each led to the densest part of its class by a thin line. A dot in front of a
   name would look like one more image. */
function drawLabels(context, { points, viewport, labels, theme }) {
  const { highlighted } = points;
  context.font = labelFont(viewport);
  context.textBaseline = "middle";
  context.lineJoin = context.lineCap = "round";
  for (const { index, offsetX, offsetY, width } of labels) {
    const { x, y, label } = points.classes[index];
    const [anchorX, anchorY] = [viewport.toPixelX(x), viewport.toPixelY(y)];
    const [left, middle] = [anchorX + offsetX, anchorY + offsetY];
    context.globalAlpha = highlighted < 0 || highlighted === index ? 1 : DIMMED_SHARE;
    const nearestX = Math.min(Math.max(anchorX, left - LEADER_GAP), left + width + LEADER_GAP);
    const nearestY = Math.min(Math.max(anchorY, middle - LEADER_RISE), middle + LEADER_RISE);
    for (const [lineWidth, colour] of [[3, theme.card], [1, theme.ink]]) {
      context.lineWidth = lineWidth;
      context.strokeStyle = colour;
      context.beginPath();
      context.moveTo(anchorX, anchorY);
      context.lineTo(nearestX, nearestY);
      context.stroke();
    }
    context.lineWidth = HALO;
    context.strokeStyle = theme.card;
    context.strokeText(label, left, middle);
    context.fillStyle = theme.ink;
    context.fillText(label, left, middle);
  }
  context.globalAlpha = 1;
}

/* The images themselves instead of dots, where there are few enough in view to be told apart. */
function drawThumbnails(context, { points, viewport, colours, thumbnails }) {
  for (const point of thumbnails.listPoints(points, viewport)) {
    const picture = thumbnails.find(points.ids[point]);
    if (!picture) continue;
    const [x, y] = [viewport.toPixelX(points.x[point]), viewport.toPixelY(points.y[point])];
    context.globalAlpha = points.shades[point] === DIMMED ? DIMMED_SHARE : 1;
    context.fillStyle = colours[points.colourIndex[point]];
    context.fillRect(x - THUMBNAIL / 2 - 2, y - THUMBNAIL / 2 - 2, THUMBNAIL + 4, THUMBNAIL + 4);
    context.drawImage(picture, x - THUMBNAIL / 2, y - THUMBNAIL / 2, THUMBNAIL, THUMBNAIL);
  }
  context.globalAlpha = 1;
}

function drawRegion(context, { viewport, region, theme }) {
  const [left, top] = [viewport.toPixelX(region.left), viewport.toPixelY(region.top)];
  const [width, height] = [viewport.toPixelX(region.right) - left, viewport.toPixelY(region.bottom) - top];
  context.globalAlpha = REGION_ALPHA;
  context.fillStyle = theme.link;
  context.fillRect(left, top, width, height);
  context.globalAlpha = 1;
  context.lineWidth = 1.5;
  context.strokeStyle = theme.link;
  context.strokeRect(left, top, width, height);
}

function drawCursor(context, { cursor: [x, y], theme }) {
  for (const [width, colour] of [[4, theme.card], [2, theme.ink]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(x - CURSOR_ARM, y);
    context.lineTo(x + CURSOR_ARM, y);
    context.moveTo(x, y - CURSOR_ARM);
    context.lineTo(x, y + CURSOR_ARM);
    context.stroke();
  }
}
