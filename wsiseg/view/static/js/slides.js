// @ts-check
/** The list of slides with thumbnail, status and areas of classes, with search and sorting. */
import { byId, make, sayArea } from "./dom.js";

/** @typedef {import("./types.js").Slide} Slide */

const NEUTRAL = [150, 158, 160];

export class SlideList {
  /** @param {(slide: Slide) => void} opened */
  constructor(opened) {
    this.opened = opened;
    /** @type {Slide[]} */
    this.slides = [];
    /** @type {Map<string, number[]>} */
    this.colors = new Map();
    this.current = "";
    this.list = byId("slide-list");
    /** @type {HTMLInputElement} */
    this.search = byId("search");
    /** @type {HTMLSelectElement} */
    this.sort = byId("sort");
    this.search.addEventListener("input", () => this.show());
    this.sort.addEventListener("change", () => this.show());
  }

  /** @param {import("./types.js").Run} run */
  setRun(run) {
    byId("run-title").textContent = run.title;
    this.slides = run.slides;
    const classes = [...new Set(run.slides.flatMap((slide) => Object.keys(slide.class_mm2)))];
    const options = [["name", "Name"], ["status", "Failed first"], ["tissue", "Most tissue"]];
    for (const name of classes) options.push([`class:${name}`, `Most ${name}`]);
    const kept = this.sort.value;
    this.sort.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
    if (options.some(([value]) => value === kept)) this.sort.value = kept;
    this.show();
  }

  /** Set the colours of classes, which are known once a slide is open. @param {import("./types.js").ClassInfo[]} classes */
  setColors(classes) {
    const before = this.colors.size;
    for (const { name, color } of classes) this.colors.set(name, color);
    if (this.colors.size !== before) this.show();
  }

  /** Return the listed slides in order. @returns {Slide[]} */
  listed() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.slides.filter(({ name, status, note, error }) => {
      const text = `${name} ${status} ${note} ${error}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    return found.sort(this.order());
  }

  /** @returns {(a: Slide, b: Slide) => number} */
  order() {
    const by = this.sort.value;
    const names = (/** @type {Slide} */ a, /** @type {Slide} */ b) =>
      a.name.localeCompare(b.name, undefined, { numeric: true });
    /** @param {Slide} slide @returns {number} */
    const value = (slide) => {
      if (by === "status") return slide.status === "failed" ? 1 : 0;
      if (by === "tissue") return slide.tissue_mm2 ?? -1;
      if (by.startsWith("class:")) return slide.class_mm2[by.slice(6)] ?? -1;
      return 0;
    };
    return (a, b) => value(b) - value(a) || names(a, b);
  }

  /** @param {string} id */
  mark(id) {
    this.current = id;
    for (const button of this.list.querySelectorAll("button")) {
      const here = button.dataset.id === id;
      if (here) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
      if (here) button.scrollIntoView({ block: "nearest" });
    }
  }

  /** Return the viewable slide before or after the current one. @param {number} step */
  neighbour(step) {
    const listed = this.listed().filter((slide) => slide.viewable);
    const at = listed.findIndex((slide) => slide.id === this.current);
    return listed[(at + step + listed.length) % listed.length];
  }

  show() {
    const listed = this.listed();
    const count = this.slides.length;
    byId("slide-count").textContent =
      listed.length === count ? `${count} slide${count === 1 ? "" : "s"}` : `${listed.length} of ${count}`;
    this.list.replaceChildren(...listed.map((slide) => make("li", {}, this.row(slide))));
    this.mark(this.current);
  }

  /** @param {Slide} slide */
  row(slide) {
    const picture = make("img", { className: "thumb", alt: "", loading: "lazy", width: 64, height: 64 });
    if (slide.viewable) picture.src = `api/slides/${slide.id}/thumbnail`;
    const words = make("span", {}, make("span", { className: "name", title: slide.name }, slide.name), this.status(slide));
    if (slide.viewable) words.append(this.bars(slide));
    const row = make("button", { disabled: !slide.viewable, title: slide.note }, picture, words);
    row.dataset.id = slide.id;
    if (slide.error) row.append(make("span", { className: "why" }, slide.error));
    row.addEventListener("click", () => this.opened(slide));
    return row;
  }

  /** @param {Slide} slide */
  status(slide) {
    const line = make("span", { className: "status" });
    const kind = slide.status === "failed" ? "failed" : slide.status === "done" ? "done" : "";
    line.append(make("span", { className: kind }, slide.status));
    if (slide.tissue_mm2 !== null) line.append(make("span", {}, sayArea(slide.tissue_mm2)));
    if (slide.note) line.append(make("span", { className: "note" }, "see note"));
    if (slide.corrected) line.append(make("span", {}, "corrected"));
    return line;
  }

  /** @param {Slide} slide */
  bars(slide) {
    const shares = Object.entries(slide.class_mm2).filter(([, mm2]) => mm2 > 0);
    const total = shares.reduce((sum, [, mm2]) => sum + mm2, 0);
    const bars = make("span", { className: "bars" });
    bars.title = shares.map(([name, mm2]) => `${name} ${((100 * mm2) / total).toFixed(1)} %`).join("\n");
    for (const [name, mm2] of shares) {
      const bar = make("i");
      bar.style.width = `${(100 * mm2) / total}%`;
      bar.style.background = `rgb(${(this.colors.get(name) ?? NEUTRAL).join(" ")})`;
      bars.append(bar);
    }
    return bars;
  }
}
