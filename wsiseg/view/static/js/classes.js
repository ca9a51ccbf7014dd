// @ts-check
/** The classes that corrections may have: those of the map, and new ones that a person names. */
import { byId, make, swatch } from "./dom.js";

/** @typedef {import("./pane.js").Pane} Pane */
/** @typedef {import("./types.js").Correction} Correction */

const CHECKED = "Checked*";
const NEW = ""; // the entry that asks for a name

export class Classes {
  constructor() {
    /** @type {HTMLSelectElement} */
    this.select = byId("draw-class");
    /** @type {HTMLDialogElement} */
    this.dialog = byId("new-class");
    /** @type {Set<string>} classes named since the page was opened */
    this.named = new Set();
    /** @type {Set<string>} of these, those that no correction has any more */
    this.unused = new Set();
    /** @type {Pane|null} */
    this.pane = null;
    /** @type {string[]} classes of the map */
    this.own = [];
    /** @type {string[]} */
    this.names = [];
    this.chosen = "";
    this.select.addEventListener("change", () => this.choose());
  }

  /** Offer the classes of a pane's map and of its corrections. @param {Pane} pane */
  offer(pane) {
    const { scene, corrections } = pane;
    this.pane = pane;
    const own = scene?.classes.map(({ name }) => name).filter((name) => name !== "Unsure") ?? [];
    const corrected = corrections.filter(({ kind }) => kind === "drawn" || kind === "reclassified");
    this.own = own;
    this.names = [...new Set([...own, ...corrected.map((one) => one.class), ...this.named])];
    this.select.replaceChildren(
      ...this.names.map((name) => make("option", { value: name }, name)),
      make("option", { value: CHECKED }, "Checked area"),
      make("option", { value: NEW }, "New class …"),
    );
    if (![...this.names, CHECKED].includes(this.chosen)) this.chosen = this.names[0] ?? CHECKED;
    this.select.value = this.chosen;
  }

  /** Names of classes with their colours; the page knows none for one that was just named. @returns {[string, number[]|undefined][]} */
  list() {
    const { scene, corrections = [] } = this.pane ?? {};
    /** @type {Map<string, number[]|undefined>} */
    const colors = new Map(corrections.map((one) => [one.class, one.color ?? undefined]));
    for (const { name, color } of scene?.classes ?? []) colors.set(name, color);
    return this.names.map((name) => [name, colors.get(name)]);
  }

  /**
   * Make a button for each class, and one for a new class.
   * @param {(name: string) => string} title
   * @param {(name: string|null) => void} act  Gets null if no new class was named.
   */
  chips(title, act) {
    const chips = this.list().map(([name, color]) => {
      const chip = make("button", { title: title(name) }, color ? swatch(color) : "", name);
      chip.addEventListener("click", () => act(name));
      return chip;
    });
    const other = make("button", { title: title("a class that the map does not have") }, "New class …");
    other.addEventListener("click", async () => act(await this.ask()));
    return [...chips, other];
  }

  /** Whether the map lacks a class. @param {string} name */
  isNew(name) {
    return !this.own.includes(name);
  }

  async choose() {
    if (this.select.value === NEW) return void (await this.ask());
    this.chosen = this.select.value;
    this.forget();
    if (this.pane) this.offer(this.pane);
  }

  /** Stop offering a class that somebody named and nothing has any more. @param {Correction[]} before @param {Correction[]} after */
  changed(before, after) {
    for (const { id, class: was } of before.filter((one) => this.isNew(one.class))) {
      if (after.some((one) => one.class === was)) continue;
      this.unused.add(was);
      const now = after.find((one) => one.id === id);
      if (this.chosen === was && now && now.kind !== "deleted") this.chosen = now.class;
    }
    for (const one of after) this.unused.delete(one.class);
    this.forget();
  }

  /** Forget unused names, but for the one that the next area is to have. */
  forget() {
    for (const name of this.unused) if (name !== this.chosen) this.named.delete(name);
    this.unused = new Set([...this.unused].filter((name) => name === this.chosen));
  }

  /** The class of that name in the spelling that is known already, but for case and blanks. @param {string} name */
  spell(name) {
    const plain = (/** @type {string} */ text) => text.toLowerCase().replace(/\s+/g, "");
    return this.names.find((one) => plain(one) === plain(name)) ?? name;
  }

  /** Ask for the name of a new class, and choose it; null if none was given. @returns {Promise<string|null>} */
  ask() {
    /** @type {HTMLInputElement} */
    const input = byId("new-class-name");
    input.value = "";
    this.dialog.returnValue = "";
    this.dialog.showModal();
    return new Promise((resolve) => this.dialog.addEventListener("close", () => {
      const name = this.dialog.returnValue === "add" ? this.spell(input.value.trim()) : "";
      if (name) {
        if (this.isNew(name)) this.named.add(name);
        this.chosen = name;
        this.forget();
      }
      if (this.pane) this.offer(this.pane);
      resolve(name || null);
    }, { once: true }));
  }
}
