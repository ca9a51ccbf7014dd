// @ts-check
/**
 * One slide on the screen: OpenSeadragon shows the photo and handles navigation; two canvases above
 * it show the rasters and the vector graphics.
 */
import { tileAddress } from "./api.js";
import { heatTable, labelTables } from "./colors.js";
import { drawCorrections, drawEarlier } from "./correction_marks.js";
import { make } from "./dom.js";
import { Outlines } from "./outlines.js";
import { drawPlaces } from "./place_marks.js";
import { paintLabels, RasterLayer } from "./raster.js";
import { scaleBar } from "./scalebar.js";
import { settings } from "./settings.js";
import { pathOf, strokeSeen } from "./shapes.js";

/** @typedef {import("./types.js").Scene} Scene */
/** @typedef {import("./types.js").View} View */
/** @typedef {import("./types.js").Place} Place */
/** @type {any} */
const OpenSeadragon = /** @type {any} */ (window).OpenSeadragon;

const MOST_ENLARGED = 24; // screen pixels per frame pixel

/**
 * @typedef {object} Listeners
 * @property {(pane: Pane) => void} opened
 * @property {(pane: Pane) => void} moved
 * @property {(pane: Pane, x: number, y: number) => void} picked  A click, in frame pixels.
 * @property {(pane: Pane) => void} drawn  After each frame.
 */

export class Pane {
  /** @param {HTMLElement} parent @param {Listeners} listeners */
  constructor(parent, listeners) {
    this.listeners = listeners;
    this.title = make("div", { className: "title", hidden: true });
    this.scaleText = make("span");
    this.scaleLine = make("i");
    this.scale = make("div", { className: "scale", hidden: true }, this.scaleText, this.scaleLine);
    this.holder = make("div", { className: "osd" });
    this.element = make("section", { className: "pane" }, this.holder, this.title, this.scale);
    Object.assign(this.element, { wsiseg: this }); // for scripts
    parent.append(this.element);
    this.osd = OpenSeadragon({
      element: this.holder, drawer: "canvas", showNavigationControl: false, animationTime: 0.35,
      springStiffness: 9, zoomPerScroll: 1.35, visibilityRatio: 0.2, minZoomImageRatio: 0.6,
      maxZoomPixelRatio: MOST_ENLARGED, immediateRender: false, showNavigator: parent.children.length === 1, // one for all panes
      navigatorWidth: 128, navigatorHeight: 96, navigatorAutoFade: false, navigatorOpacity: 1,
      navigatorMaintainSizeRatio: false, controlsFadeDelay: 1e9, navigatorPosition: "TOP_RIGHT", crossOriginPolicy: false,
      preserveImageSizeOnResize: true,
      navigatorDisplayRegionColor: "#12616e", navigatorBorderColor: "#c6cfd0",
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
    });
    this.rasters = make("canvas", { className: "over raster" });
    this.vectors = make("canvas", { className: "over vector" });
    this.osd.canvas.append(this.rasters, this.vectors);
    /** @type {Scene|null} */
    this.scene = null;
    /** @type {import("./types.js").Picked|null} */
    this.picked = null;
    /** @type {import("./types.js").Correction[]} */
    this.corrections = [];
    /** @type {import("./types.js").Earlier[]} of an earlier run, without those that were kept */
    this.earlier = [];
    /** @type {import("./types.js").Frame[]} of suggested places */
    this.frames = [];
    /** @type {number[]|null} a box to show as soon as the slide is open */
    this.wanted = null;
    /** @type {number[]|null} the line being drawn */
    this.draft = null;
    this.waiting = 0;
    this.osd.addHandler("canvas-key", (/** @type {any} */ event) => {
      event.preventDefaultAction = true; // OpenSeadragon's keys rotate and flip the slide; ours are in keys.js
      event.preventDefault = false;
    });
    this.osd.addHandler("canvas-click", (/** @type {any} */ event) => this.click(event));
    for (const name of ["update-viewport", "animation", "resize", "open"]) {
      this.osd.addHandler(name, () => this.redraw());
    }
    this.osd.addHandler("viewport-change", () => this.listeners.moved(this));
  }

  /** @param {Scene} scene @param {Place|null} place */
  open(scene, place) {
    this.close();
    this.scene = scene;
    this.map = new RasterLayer(scene, () => this.redraw());
    this.heat = new RasterLayer(scene, () => this.redraw());
    this.outlines = new Outlines(scene, () => this.redraw());
    this.scale.hidden = false;
    this.osd.addOnceHandler("open", () => {
      // OpenSeadragon notices a change in size of the bars around it only later.
      const { clientWidth, clientHeight } = this.holder;
      this.osd.viewport.resize(new OpenSeadragon.Point(clientWidth, clientHeight));
      if (place) this.goTo(place, true);
      else this.osd.viewport.goHome(true);
      if (this.wanted) this.showBox(this.wanted, true);
      this.listeners.opened(this);
    });
    this.osd.open({
      width: scene.width, height: scene.height, tileSize: scene.tile, tileOverlap: 0,
      minLevel: 0, maxLevel: scene.coarsest,
      getTileUrl: (/** @type {number} */ level, /** @type {number} */ x, /** @type {number} */ y) =>
        scene.layers.photo ? tileAddress(scene, "photo", scene.coarsest - level, x, y) : "",
    });
  }

  close() {
    this.map?.close();
    this.heat?.close();
    this.outlines?.close();
    this.scene = null;
    this.picked = null;
    this.corrections = [];
    this.earlier = [];
    this.frames = [];
    this.wanted = null;
    this.draft = null;
    if (this.osd.isOpen()) this.osd.close();
  }

  destroy() {
    this.close();
    cancelAnimationFrame(this.waiting);
    this.osd.destroy();
    this.element.remove();
  }

  /** @returns {View|null} */
  view() {
    if (!this.scene || !this.osd.isOpen() || !this.osd.viewport) return null;
    const bounds = this.osd.viewport.getBounds(true);
    const { x: width, y: height } = this.osd.viewport.getContainerSize();
    const scale = width / (bounds.width * this.scene.width);
    return { scale, x: -bounds.x * this.scene.width * scale, y: -bounds.y * this.scene.width * scale, width, height };
  }

  /** @returns {Place|null} */
  place() {
    const view = this.view();
    if (!view || !this.scene) return null;
    const { mpp } = this.scene;
    return {
      x: ((view.width / 2 - view.x) / view.scale) * mpp,
      y: ((view.height / 2 - view.y) / view.scale) * mpp,
      um: mpp / view.scale,
    };
  }

  /** @param {Place} place @param {boolean} atOnce */
  goTo(place, atOnce) {
    if (!this.scene || !this.osd.viewport) return;
    const { x: width } = this.osd.viewport.getContainerSize();
    const { mpp } = this.scene;
    const whole = this.scene.width * mpp;
    const zoom = whole / (place.um * width);
    this.osd.viewport.zoomTo(zoom, undefined, atOnce);
    this.osd.viewport.panTo(new OpenSeadragon.Point(place.x / whole, place.y / whole), atOnce);
  }

  /** Show a box of the frame with a margin, as soon as the slide is open. @param {number[]} box @param {boolean} [atOnce] */
  showBox(box, atOnce = false) {
    if (!this.scene) return;
    this.wanted = this.osd.isOpen() ? null : box;
    if (this.wanted) return;
    const [x0, y0, x1, y1] = box;
    const { x: width, y: height } = this.osd.viewport.getContainerSize();
    const { mpp } = this.scene;
    const um = Math.max((2 * (x1 - x0) * mpp) / width, (2 * (y1 - y0) * mpp) / height, mpp / 4);
    this.goTo({ x: ((x0 + x1) / 2) * mpp, y: ((y0 + y1) / 2) * mpp, um }, atOnce);
  }

  /** Whether the middle of a box is in view. @param {number[]} box */
  shows([x0, y0, x1, y1]) {
    const view = this.view();
    if (!view) return false;
    const [x, y] = [view.x + ((x0 + x1) / 2) * view.scale, view.y + ((y0 + y1) / 2) * view.scale];
    return x > 0 && x < view.width && y > 0 && y < view.height;
  }

  get isDrawnOn() {
    return this.element.classList.contains("drawing");
  }

  /** @param {any} event */
  click(event) {
    if (!event.quick || this.isDrawnOn) return;
    event.preventDefaultAction = true;
    const at = this.toFrame(event.position.x, event.position.y);
    if (at) this.listeners.picked(this, at.x, at.y);
  }

  /** Convert a point of the pane to frame pixels. @param {number} x @param {number} y */
  toFrame(x, y) {
    const view = this.view();
    return view && { x: (x - view.x) / view.scale, y: (y - view.y) / view.scale };
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    const view = this.view();
    if (!view || !this.scene) return;
    const raster = sized(this.rasters, view);
    const vector = sized(this.vectors, view);
    const near = settings.outlines && this.scene.layers.labels && this.outlines;
    if (near) near.follow(view);
    const lines = Boolean(near && near.covers(view));
    if (settings.map && this.scene.layers.labels) this.map?.draw(raster, view, this.mapStyle(!lines && settings.outlines));
    if (settings.heat && this.scene.layers[settings.heatKind.split("-")[0]]) this.heat?.draw(raster, view, this.heatStyle());
    if (near && lines && settings.map) near.draw(vector, view, settings.hidden);
    drawCorrections(vector, view, this.scene, this.corrections);
    if (settings.earlier) drawEarlier(vector, view, this.scene, this.earlier);
    drawPlaces(vector, view, this.frames);
    if (this.picked?.rings) strokeSeen(vector, pathOf(view, this.picked.rings), "#0b5563", 2.5);
    if (this.draft) strokeSeen(vector, pathOf(view, [this.draft], false), "#0b5563", 2, [6, 4]);
    const bar = scaleBar(this.scene.mpp / view.scale);
    this.scaleText.textContent = bar.text;
    this.scaleLine.style.width = `${bar.pixels}px`;
    this.listeners.drawn(this);
  }

  /** @param {boolean} edges @returns {import("./raster.js").Style} */
  mapStyle(edges) {
    const { classes } = /** @type {Scene} */ (this.scene);
    const least = Math.round(settings.mapLeast * 255);
    const key = [edges, settings.mapOpacity, least, ...settings.hidden].join(" ");
    const kinds = least ? ["labels", "confidence"] : ["labels"];
    const { fill, border } = labelTables(classes, settings.hidden, settings.mapOpacity);
    return {
      key, kinds,
      paint: ([labels, trust], out, side) =>
        labels && paintLabels(labels, trust ?? null, least, fill, border, edges, out, side),
    };
  }

  /** @returns {import("./raster.js").Style} */
  heatStyle() {
    const table = heatTable(settings.heatOpacity, settings.heatLeast);
    return {
      key: `${settings.heatKind} ${settings.heatOpacity} ${settings.heatLeast}`, kinds: [settings.heatKind],
      paint: ([values], out) => {
        if (values) for (let i = 0; i < out.length; i++) out[i] = table[values[i]];
      },
    };
  }
}

/** Resize a canvas to the pane in device pixels, and clear it. @param {HTMLCanvasElement} canvas @param {View} view */
function sized(canvas, view) {
  const [width, height] = [view.width, view.height].map((side) => Math.round(side * devicePixelRatio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  if (!context) throw new Error("the browser does not provide a canvas");
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, view.width, view.height);
  return context;
}
