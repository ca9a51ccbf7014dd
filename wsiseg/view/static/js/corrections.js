// @ts-check
/** Corrections of the slide: what is selected, the list, and saving on the server. */
import { correct, readCorrections } from "./api.js";
import { Classes } from "./classes.js";
import { byId, make, sayArea } from "./dom.js";
import { keepMade, recallMade } from "./made.js";
import { showPicked } from "./picked.js";
import { isArea, isEarlier } from "./picking.js";
import { makeRow, sayFrom, sayWhat } from "./rows.js";
import { boxOf } from "./shapes.js";

/** @typedef {import("./pane.js").Pane} Pane */
/** @typedef {import("./types.js").Correction} Correction */
/** @typedef {import("./types.js").Picked} Picked */
/** @typedef {{action: string, class?: string} & Record<string, any>} Order */

/**
 * @typedef {object} Listeners
 * @property {(text: string, bad?: boolean) => void} tell
 * @property {(gone: string[]) => Promise<void>} saved  After each change that was saved, with the ids of corrections that are gone.
 * @property {() => void} shown  After the list was shown anew.
 * @property {(slide: string) => Promise<void>} open  Open the slide with that id.
 * @property {(one: Picked) => void} select
 */

const REFUSED = [400, 404]; // what the server answers if it will not do so later either

export class Corrections {
  /** @param {Listeners} listeners */
  constructor(listeners) {
    this.listeners = listeners;
    this.classes = new Classes();
    this.told = false; // whether the notice is about the last change
    this.version = ""; // of the file, as it is shown
    this.made = recallMade();
    /** @type {Promise<any>} one change after the other, so that the last is the one to undo */
    this.queue = Promise.resolve();
    /** @type {HTMLButtonElement} */
    this.undoButton = byId("undo");
    this.undoButton.addEventListener("click", () => this.undo());
    document.addEventListener("visibilitychange", () => this.look());
    window.addEventListener("focus", () => this.look());
  }

  /** @param {Pane} pane */
  async open(pane) {
    this.pane = pane;
    this.version = "";
    if (!pane.scene?.layers.labels) return this.show();
    const others = await this.read();
    if (others) this.listeners.tell(`${others} more features in the corrections file are not from the viewer, or damaged: they are kept, but not shown`);
  }

  /** Read the file, and show it if it is not what is shown. @returns {Promise<number>} features of other programs, and damaged ones */
  async read() {
    const { pane } = this;
    const scene = pane?.scene;
    if (!pane || !scene?.layers.labels) return 0;
    let known, answer;
    do { // again if something was saved meanwhile
      known = this.version;
      answer = await readCorrections(scene.id);
      if (pane.scene !== scene) return 0;
    } while (known !== this.version);
    const { version, features, others, undoable } = answer;
    this.made = keepMade(this.made.filter(({ slide, change }) => slide !== scene.id || undoable.includes(change)));
    if (version !== known) this.set(version, features);
    return others;
  }

  /** Somebody looks at the page again: others may have corrected the slide meanwhile. */
  async look() {
    const { version } = this;
    if (document.hidden || !version) return;
    await this.read().catch(() => 0); // what is done next says so
    if (version !== this.version) await this.listeners.saved([]);
  }

  /** @param {string} version @param {Correction[]} corrections of the open slide */
  set(version, corrections) {
    const { pane } = this;
    if (!pane) return;
    this.version = version;
    this.classes.changed(pane.corrections, corrections);
    pane.corrections = corrections;
    const { picked } = pane;
    const copy = picked && isEarlier(picked) && corrections.find(({ id }) => id === picked.copy);
    if (copy) pane.picked = copy;
    else if (picked && isArea(picked)) pane.picked = corrections.find(({ id }) => id === picked.id) ?? null;
    this.show();
    pane.redraw();
  }

  /** @template T @param {() => Promise<T>} act @returns {Promise<T>} */
  inTurn(act) {
    const done = this.queue.then(act);
    this.queue = done.catch(() => undefined);
    return done;
  }

  /** Save one change, or say why it was not saved. @param {Order} order @returns {Promise<string>} id of the first correction that changed; empty if none did */
  order(order) {
    const slide = this.pane?.scene?.id;
    return this.inTurn(async () => (slide ? this.send(order, slide) : ""));
  }

  /** @param {Order} order @param {string} slide @returns {Promise<string>} */
  async send(order, slide) {
    let changed;
    try {
      changed = await correct(slide, order);
    } catch (error) {
      await this.refused(order, /** @type {any} */ (error));
      return "";
    }
    if (this.told) this.listeners.tell(""); // what is said of an earlier change does not hold for this
    this.told = false;
    const { edits, change } = changed;
    const others = this.made.filter((one) => one.change !== order.change);
    this.made = keepMade(change ? [...others, { slide, change }] : others);
    if (this.pane?.scene?.id === slide) await this.take(changed);
    await this.listeners.saved(edits.filter(({ feature }) => !feature).map(({ id }) => id));
    return edits[0]?.id ?? "";
  }

  /** Show what was saved; if others changed the file before it, that too. @param {import("./types.js").Change} change */
  async take({ edits, was, version }) {
    const { corrections } = /** @type {Pane} */ (this.pane);
    if (was !== this.version) return void (await this.read().catch((error) => this.listeners.tell(error.message, true)));
    const now = new Map(edits.map(({ id, feature }) => [id, feature]));
    const rest = corrections.map((one) => (now.has(one.id) ? now.get(one.id) ?? null : one));
    const added = [...now].filter(([id]) => corrections.every((one) => one.id !== id)).map(([, feature]) => feature);
    this.set(version, [...rest, ...added].filter((one) => one !== null));
  }

  /** @param {Order} order @param {Error & {status?: number}} error */
  async refused(order, error) {
    this.told = true;
    this.listeners.tell(`Not ${order.action === "undo" ? "undone" : "saved"}: ${error.message}`, true);
    this.classes.named.delete(order.class ?? ""); // unless a correction has it, it is offered no more
    if (REFUSED.includes(error.status ?? 0)) this.made = keepMade(this.made.filter((one) => one.change !== order.change));
    this.show();
    await this.look(); // as others may be why
  }

  /** Undo the last change of this page, on the slide where it was made: labelling a place may lead to another. */
  undo() {
    return this.inTurn(async () => {
      const last = this.made.at(-1);
      if (!last) return;
      if (last.slide !== this.pane?.scene?.id) await this.listeners.open(last.slide);
      if (this.made.includes(last)) return void (await this.send({ action: "undo", change: last.change }, last.slide));
      // the server keeps those of a few slides
      this.listeners.tell("What was corrected on this slide before cannot be undone any more: remove it in the list.");
      this.show();
    });
  }

  /** @param {string|null} name null if none was given */
  reclassify(name) {
    const one = this.pane?.picked;
    if (!one || !name) return;
    const what = isArea(one) ? { action: "rename", id: one.id } : { action: "reclassify", region: one.id };
    this.order({ ...what, class: name, new: this.classes.isNew(name) });
  }

  /** Delete the selected region, or remove the selected area. */
  delete() {
    const one = this.pane?.picked;
    if (!one) return;
    if (isArea(one)) return this.remove(one);
    if (isEarlier(one)) return this.listeners.tell("What was corrected on the earlier map stays there as it is.");
    const correction = this.of(one);
    if (correction?.kind === "deleted") return;
    return this.orderAndSay({ action: "delete", region: one.id }, `Deleted ${correction?.class ?? one.class}, ${sayArea(one.mm2)}`);
  }

  /** @param {Correction} one */
  remove(one) {
    return this.orderAndSay({ action: "remove", id: one.id }, `Removed: ${sayWithArea(one)}`);
  }

  /** Copy corrections of an earlier run into those of this run. @param {import("./types.js").Earlier[]} marks */
  keep(marks) {
    const what = marks.length === 1 ? sayWithArea(marks[0]) : `${marks.length} corrections of the earlier map`;
    return this.orderAndSay({ action: "keep", ids: marks.map(({ id }) => id) }, `Kept here: ${what}`);
  }

  keepPicked() {
    const one = this.pane?.picked;
    if (one && isEarlier(one) && one.copy) this.keep([one]);
  }

  /** @param {Order} order @param {string} text */
  async orderAndSay(order, text) {
    if (!(await this.order(order))) return;
    this.told = true;
    this.listeners.tell(`${text} (Ctrl+Z undoes)`);
  }

  /** The correction of a region. @param {Picked} one */
  of(one) {
    return this.pane?.corrections.find(({ id }) => id === one.id) ?? null;
  }

  /** @param {number[][]} points of an area @param {string} name of its class */
  draw(points, name = this.classes.chosen) {
    return this.order(name === "Checked*" ? { action: "check", points } : { action: "draw", class: name, points, new: this.classes.isNew(name) });
  }

  show() {
    const { pane } = this;
    const corrections = pane?.corrections ?? [];
    byId("correction-count").textContent = corrections.length ? String(corrections.length) : "";
    const rows = pane ? corrections.map((one) => this.row(pane, one)) : [];
    this.undoButton.disabled = !this.made.length;
    if (pane) this.classes.offer(pane);
    const hint = "None. Click a region to change it, or draw an area.";
    byId("corrections").replaceChildren(...(rows.length ? rows : [make("li", { className: "empty" }, hint)]));
    this.showPicked();
    this.listeners.shown();
  }

  /** @param {Pane} pane @param {Correction} one */
  row(pane, one) {
    const take = make("button", { className: "take", title: "Remove this correction", ariaLabel: `Remove: ${sayWhat(one)}` }, "×");
    take.addEventListener("click", () => this.remove(one));
    const go = () => {
      pane.showBox(boxOf(one.rings));
      this.listeners.select(pickable(one));
    };
    return makeRow(/** @type {import("./types.js").Scene} */ (pane.scene), one, go, take);
  }

  /** Show the properties of what is selected, and mark it in the list. */
  showPicked() {
    const one = this.pane?.picked ?? null;
    for (const go of document.querySelectorAll(".marks .go")) {
      go.setAttribute("aria-current", String(/** @type {HTMLElement} */ (go).dataset.id === one?.id));
    }
    showPicked(one, one && this.of(one), this.classes, {
      change: (name) => this.reclassify(name), remove: () => this.delete(), keep: () => this.keepPicked(),
    });
  }
}

/** @param {Correction} one */
const sayWithArea = (one) => `${sayWhat(one)}, ${sayArea(one.mm2)}`;

/** What a correction is about: the area itself, or the region as the map has it. @param {Correction} one @returns {Picked} */
function pickable(one) {
  if (one.kind === "drawn" || one.kind === "checked") return one;
  const { id, mm2, rings } = one;
  return { index: -1, id, class: sayFrom(one), mm2, confidence: null, box: boxOf(rings), rings };
}
