// @ts-check
/** Save the current view as a PNG with scale bar and legend. */
import { make } from "./dom.js";
import { scaleBar } from "./scalebar.js";
import { settings } from "./settings.js";

/** @typedef {import("./pane.js").Pane} Pane */

const LINE = 22;
const FONT = "system-ui, 'Liberation Sans', Arial, sans-serif";

/** @param {Pane[]} panes @returns {Promise<Blob>} */
export function paintSnapshot(panes) {
  const open = panes.filter((pane) => pane.view() && pane.scene);
  const views = open.map((pane) => /** @type {import("./types.js").View} */ (pane.view()));
  const ratio = devicePixelRatio;
  const width = views.reduce((sum, view) => sum + view.width + 1, -1);
  const height = Math.max(...views.map((view) => view.height));
  const classes = legend(open);
  const columns = Math.max(1, Math.floor(width / 190));
  const foot = 14 + LINE * (1 + Math.ceil(classes.length / columns));
  const canvas = make("canvas", { width: width * ratio, height: (height + foot) * ratio });
  const context = canvas.getContext("2d");
  if (!context) throw new Error("the browser does not provide a canvas");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.scale(ratio, ratio);
  let left = 0;
  open.forEach((pane, i) => {
    paintPane(context, pane, views[i], left);
    left += views[i].width + 1;
  });
  context.fillStyle = "#1d2629";
  context.font = `600 13px ${FONT}`;
  const runs = open.map((pane) => pane.title.textContent).filter(Boolean).join("  |  ");
  context.fillText([open[0]?.scene?.name, runs].filter(Boolean).join(":  "), 12, height + 20);
  context.font = `13px ${FONT}`;
  classes.forEach(({ name, color }, i) => {
    const [x, y] = [12 + (i % columns) * 190, height + 20 + LINE * (1 + Math.floor(i / columns))];
    context.fillStyle = `rgb(${color.join(" ")})`;
    context.fillRect(x, y - 11, 13, 13);
    context.fillStyle = "#1d2629";
    context.fillText(name, x + 20, y, 165);
  });
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large"))), "image/png"));
}

/** Return the visible classes. @param {Pane[]} panes */
function legend(panes) {
  /** @type {Map<string, import("./types.js").ClassInfo>} */
  const found = new Map();
  if (!settings.map) return [];
  for (const pane of panes) {
    for (const one of pane.scene?.classes ?? []) {
      if (!settings.hidden.has(one.name) && one.mm2 !== 0) found.set(one.name, one);
    }
  }
  return [...found.values()];
}

/** @param {CanvasRenderingContext2D} context @param {Pane} pane @param {import("./types.js").View} view @param {number} left */
function paintPane(context, pane, view, left) {
  context.save();
  context.beginPath();
  context.rect(left, 0, view.width, view.height);
  context.clip();
  const photo = /** @type {HTMLCanvasElement} */ (pane.osd.drawer.canvas);
  for (const layer of [photo, pane.rasters, pane.vectors]) {
    context.drawImage(layer, left, 0, view.width, view.height);
  }
  if (pane.scene) {
    const bar = scaleBar(pane.scene.mpp / view.scale);
    const [x, y] = [left + 16, view.height - 18];
    context.fillStyle = "#ffffffd8";
    context.fillRect(x - 8, y - 24, bar.pixels + 16, 36);
    context.fillStyle = "#1d2629";
    context.fillRect(x, y, bar.pixels, 4);
    context.font = `12px ${FONT}`;
    context.textAlign = "center";
    context.fillText(bar.text, x + bar.pixels / 2, y - 7);
  }
  context.restore();
}

/** @param {Pane[]} panes @param {string} name */
export async function saveSnapshot(panes, name) {
  const address = URL.createObjectURL(await paintSnapshot(panes));
  make("a", { href: address, download: `${name.replace(/[^\p{L}\p{N}._ -]+/gu, "_")}.png` }).click();
  window.setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
