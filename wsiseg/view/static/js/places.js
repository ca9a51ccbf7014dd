// @ts-check
/** Go through the suggested places, and label the whole frame of one with a class. */
import { readFrames } from "./api.js";
import { byId, make } from "./dom.js";

/** @typedef {import("./pane.js").Pane} Pane */
/** @typedef {import("./types.js").Suggestion} Suggestion */

const NONE = "There are no places here: wsiseg suggest chooses some, and wsiseg view --suggest shows them.";

export class Places {
  /**
   * @param {import("./corrections.js").Corrections} corrections
   * @param {(slide: string) => Promise<void>} open  Open the slide with that id.
   * @param {(box: number[]) => void} look  Show a box of the slide.
   * @param {(text: string) => void} tell
   */
  constructor(corrections, open, look, tell) {
    this.corrections = corrections;
    this.open = open;
    this.look = look;
    this.tell = tell;
    /** @type {Suggestion[]} by rank */
    this.list = [];
    /** @type {Map<number, number[]>} boxes by rank, of the open slide */
    this.boxes = new Map();
    /** @type {Map<string, number>} ranks by the correction that labels the whole frame */
    this.made = new Map();
    this.rank = 0; // where the walk is
    this.isThere = false; // whether that place is the current one
    this.busy = false;
    this.ended = false; // just now, by labelling the last place
    this.offered = "";
    byId("place-back").addEventListener("click", () => this.go(-1));
    byId("place-next").addEventListener("click", () => this.go(1));
    document.addEventListener("pointerdown", () => (this.ended = false));
  }

  /** Whether digits label places: else they are for the map. */
  get takesDigits() {
    return Boolean(this.box) || this.busy || this.ended;
  }

  /** The frame of the current place, if its slide is open. */
  get box() {
    return this.isThere ? this.boxes.get(this.rank) : undefined;
  }

  /** @param {import("./types.js").Run} run */
  setRun(run) {
    this.list = run.places;
    this.show();
  }

  /** Show the frames of the slide that was opened. @param {Pane} pane @param {boolean} look  Go to the current place. */
  async follow(pane, look) {
    const { scene } = pane;
    this.pane = pane;
    this.ended = false;
    this.boxes = new Map();
    if (scene && this.list.some(({ slide }) => slide === scene.id)) {
      const { frames } = await readFrames(scene.id);
      if (pane.scene !== scene) return;
      this.boxes = new Map(frames.map(({ rank, box }) => [rank, box]));
    }
    if (look && this.box) this.look(this.box);
    this.show();
  }

  /** Go to the next place that is not labelled. @param {number} step 1, or -1 for the one before */
  go(step) {
    return this.alone(() => this.step(step));
  }

  /** Label the whole frame, and go to the next. @param {string|null|undefined} name of a class */
  label(name) {
    return this.alone(async () => {
      const { box, pane, rank } = this;
      if (!box || !name) return;
      if (!pane?.shows(box)) {
        this.look(box); // nobody labels what they do not see
        return this.tell("This is the place: choose once more to label it.");
      }
      const [x0, y0, x1, y1] = box;
      const saved = await this.corrections.draw([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], name);
      if (!saved) return;
      this.made.set(saved, rank);
      await this.step(1);
      this.ended = !this.isThere;
    });
  }

  /** Return to the place whose label was taken back. @param {string} id of a correction */
  async revisit(id) {
    const rank = this.made.get(id);
    const place = this.list.find((one) => one.rank === rank);
    if (place) await this.visit(place);
  }

  /** There is no current place any more; the walk goes on from here. */
  leave() {
    this.isThere = false;
    this.ended = false;
    this.show();
  }

  /** Do one thing after the other: keys may come faster than slides open. @param {() => Promise<void>} act */
  async alone(act) {
    if (this.busy) return;
    this.busy = true;
    try {
      await act();
    } finally {
      this.busy = false;
    }
  }

  /** @param {number} step */
  async step(step) {
    const left = this.list.filter(({ labelled }) => !labelled);
    if (!left.length) {
      this.leave();
      return this.tell(this.list.length ? "All places are labelled." : NONE);
    }
    const after = left.filter(({ rank }) => step * (rank - this.rank) > 0);
    const at = step > 0 ? 0 : -1;
    await this.visit(/** @type {Suggestion} */ (after.at(at) ?? left.at(at)));
  }

  /** @param {Suggestion} place */
  async visit({ rank, slide }) {
    this.rank = rank;
    this.isThere = true;
    if (this.pane?.scene?.id !== slide) await this.open(slide); // shows the place, too
    else if (this.box) this.look(this.box);
    this.show();
  }

  show() {
    const { list } = this;
    byId("places").hidden = !list.length;
    byId("places-learn").hidden = !list.every(({ labelled }) => labelled);
    const done = new Set(list.filter(({ labelled }) => labelled).map(({ rank }) => rank));
    byId("place-count").textContent = `${done.size} of ${list.length} labelled`;
    const text = this.box ? `Place ${this.rank}. If one class fills the frame, choose it; else draw areas (R, P).`
      : list.length && done.size === list.length ? "All places are labelled."
      : "Frames that are worth labelling, the best first.";
    if (byId("place-text").textContent !== text) byId("place-text").textContent = text; // it is read out
    this.offer();
    if (!this.pane) return;
    this.pane.frames = [...this.boxes].map(([rank, box]) =>
      ({ box, labelled: done.has(rank), current: this.isThere && rank === this.rank }));
    this.pane.redraw();
  }

  /** Offer the classes: buttons stay as they are while the classes do, and so does the focus. */
  offer() {
    const { classes } = this.corrections;
    byId("place-classes").hidden = !this.box;
    const offered = JSON.stringify(classes.list());
    if (!this.pane || offered === this.offered) return;
    this.offered = offered;
    const chips = classes.chips((name) => `Label the whole frame as ${name}, and go on`, (name) => this.label(name));
    chips.slice(0, Math.min(9, classes.names.length)).forEach((chip, i) => chip.append(" ", make("kbd", {}, String(i + 1))));
    byId("place-classes").replaceChildren(...chips);
  }
}
