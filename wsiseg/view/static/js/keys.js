// @ts-check
/** Keyboard shortcuts, and the dialog that lists them. */
import { byId, make } from "./dom.js";

/** @typedef {{keys: string[], text: string, act: () => void, shown?: string, once?: boolean}} Key  once: not again while it is held */

/** @param {Key[]} keys @param {() => void} toMap  Give the keyboard to the map. */
export function bindKeys(keys, toMap) {
  leaveLists(toMap);
  const table = new Map(keys.flatMap((one) => one.keys.map((key) => [key, one])));
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.altKey || target.closest("dialog")) return;
    if (target.matches("input[type=search]") && event.key !== "Escape") return;
    if (target.matches("select") && !event.ctrlKey && !event.metaKey) return; // its own: see leaveLists
    if (target.matches("button, input") && [" ", "Enter"].includes(event.key)) return;
    if (target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
    const name = event.ctrlKey || event.metaKey ? `Ctrl+${event.key.toLowerCase()}` : event.key;
    const found = table.get(name) ?? (event.ctrlKey ? undefined : table.get(name.toLowerCase()));
    if (!found) return;
    event.preventDefault();
    if (!(found.once && event.repeat)) found.act();
  });
  const list = byId("keys").querySelector("dl");
  for (const { keys: names, text, shown } of keys) {
    if (text) list?.append(make("dt", {}, make("kbd", {}, shown ?? names[0])), make("dd", {}, text));
  }
}

/** Leave a list for the map once something was chosen, or by Esc; not by arrows and letters, which choose in a closed list and go on. @param {() => void} toMap */
function leaveLists(toMap) {
  let stays = false;
  document.addEventListener("pointerdown", () => (stays = false));
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (!target.matches("select")) return;
    stays = ![" ", "Enter", "F4"].includes(event.key) && !event.altKey; // those open the list
    if (event.key === "Escape") toMap();
  });
  // Before the list's own listener, as a dialog that it opens returns to where the keyboard was.
  document.addEventListener("change", ({ target }) => {
    if (target === document.activeElement && target instanceof HTMLSelectElement && !stays) toMap();
  }, true);
}
