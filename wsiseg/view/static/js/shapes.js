// @ts-check
/** Draw rings and lines in frame coordinates on a pane's canvas. */

/** @typedef {import("./types.js").View} View */

/** @param {View} view @param {number[]} points @param {Path2D} path @param {boolean} closed */
function addLine(view, points, path, closed) {
  for (let i = 0; i < points.length; i += 2) {
    const [x, y] = [view.x + points[i] * view.scale, view.y + points[i + 1] * view.scale];
    if (i) path.lineTo(x, y);
    else path.moveTo(x, y);
  }
  if (closed) path.closePath();
}

/** @param {View} view @param {number[][]} rings @param {boolean} [closed] */
export function pathOf(view, rings, closed = true) {
  const path = new Path2D();
  for (const ring of rings) addLine(view, ring, path, closed);
  return path;
}

/** @param {View} view @param {number[]} box left, top, right, bottom */
export const boxPath = (view, [x0, y0, x1, y1]) => pathOf(view, [[x0, y0, x1, y0, x1, y1, x0, y1]]);

/** Stroke a line that is visible on dark and on light backgrounds. @param {CanvasRenderingContext2D} context @param {Path2D} path @param {string} color @param {number} width @param {number[]} [dash] */
export function strokeSeen(context, path, color, width, dash = []) {
  context.lineJoin = "round";
  context.setLineDash([]);
  context.strokeStyle = "#ffffffd9";
  context.lineWidth = width + 2.5;
  context.stroke(path);
  context.setLineDash(dash);
  context.strokeStyle = color;
  context.lineWidth = width;
  context.stroke(path);
  context.setLineDash([]);
}

/** Whether a point is inside, by the even-odd rule. @param {number[][]} rings @param {number} x @param {number} y */
export function contains(rings, x, y) {
  let inside = false;
  for (const ring of rings) {
    for (let i = 0, j = ring.length - 2; i < ring.length; j = i, i += 2) {
      if (ring[i + 1] > y !== ring[j + 1] > y
        && x < ring[i] + ((y - ring[i + 1]) * (ring[j] - ring[i])) / (ring[j + 1] - ring[i + 1])) inside = !inside;
    }
  }
  return inside;
}

/** Left, top, right, bottom. @param {number[][]} rings */
export function boxOf(rings) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) {
      box[0] = Math.min(box[0], ring[i]);
      box[1] = Math.min(box[1], ring[i + 1]);
      box[2] = Math.max(box[2], ring[i]);
      box[3] = Math.max(box[3], ring[i + 1]);
    }
  }
  return box;
}
