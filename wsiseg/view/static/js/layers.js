// @ts-check
/** Controls of the layers, and the legend with its check boxes. */
import { ramp } from "./colors.js";
import { byId, make, sayArea, sayShare, swatch } from "./dom.js";
import { settings } from "./settings.js";

/** @type {[string, "mapOpacity"|"mapLeast"|"heatOpacity"|"heatLeast"][]} */
const SLIDERS = [
  ["map-opacity", "mapOpacity"], ["map-least", "mapLeast"],
  ["heat-opacity", "heatOpacity"], ["heat-least", "heatLeast"],
];
/** @typedef {"map"|"outlines"|"heat"|"earlier"} Flag */
/** @type {[string, Flag][]} */
const BOXES = [["map-on", "map"], ["outlines-on", "outlines"], ["heat-on", "heat"], ["earlier-on", "earlier"]];

export class Layers {
  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    /** @type {HTMLSelectElement} */
    this.kind = byId("heat-kind");
    for (const [id, name] of SLIDERS) {
      /** @type {HTMLInputElement} */
      const slider = byId(id);
      slider.addEventListener("input", () => this.set(() => (settings[name] = slider.valueAsNumber / 100)));
    }
    for (const [id, name] of BOXES) {
      /** @type {HTMLInputElement} */
      const box = byId(id);
      box.addEventListener("change", () => this.set(() => (settings[name] = box.checked)));
    }
    this.kind.addEventListener("change", () =>
      this.set(() => Object.assign(settings, { heatKind: this.kind.value, heat: true })));
    this.drawRamp();
    this.show();
  }

  /** @param {() => void} change */
  set(change) {
    change();
    this.show();
    this.changed();
  }

  /** @param {Flag} name */
  toggle(name) {
    this.set(() => (settings[name] = !settings[name]));
  }

  /** @param {string} name */
  toggleClass(name) {
    this.set(() => settings.hidden.delete(name) || settings.hidden.add(name));
  }

  /** @param {import("./types.js").Scene} scene */
  setScene(scene) {
    this.scene = scene;
    const kinds = scene.layers.confidence ? [["confidence", "Confidence of the map"]] : [];
    scene.classes.slice(0, scene.scored).forEach(({ name }, k) => kinds.push([`score-${k}`, `${name} (${scene.scores})`]));
    this.kind.replaceChildren(...kinds.map(([value, text]) => make("option", { value }, text)));
    if (!kinds.some(([value]) => value === settings.heatKind)) settings.heatKind = kinds[0]?.[0] ?? "confidence";
    byId("legend").replaceChildren(...scene.classes.map((one) => this.row(one)));
    this.show();
  }

  /** @param {import("./types.js").ClassInfo} one */
  row({ name, color, mm2 }) {
    const box = make("input", { type: "checkbox" });
    box.dataset.name = name;
    box.addEventListener("change", () => this.toggleClass(name));
    const label = make("label", {}, box, swatch(color), make("span", {}, name), make("span", { className: "mm2" }, sayArea(mm2)));
    return make("li", {}, label);
  }

  show() {
    for (const [id, name] of SLIDERS) {
      /** @type {HTMLInputElement} */
      const slider = byId(id);
      slider.value = String(Math.round(settings[name] * 100));
      const output = slider.nextElementSibling;
      if (output) output.textContent = sayShare(settings[name]).replace(/\s/, "");
    }
    for (const [id, name] of BOXES) {
      /** @type {HTMLInputElement} */
      const box = byId(id);
      box.checked = settings[name];
    }
    this.kind.value = settings.heatKind;
    for (const box of byId("legend").querySelectorAll("input")) {
      const off = settings.hidden.has(box.dataset.name ?? "");
      box.checked = !off;
      box.closest("li")?.classList.toggle("off", off);
    }
  }

  drawRamp() {
    const context = byId("ramp").querySelector("canvas")?.getContext("2d");
    for (let x = 0; context && x < 256; x++) {
      context.fillStyle = `rgb(${ramp(x / 255).join(" ")})`;
      context.fillRect(x, 0, 1, 1);
    }
  }
}
