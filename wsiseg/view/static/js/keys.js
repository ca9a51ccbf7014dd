// @ts-check
/** Keyboard shortcuts, and the dialog that lists them. */
import { byId, make } from "./dom.js";

/** @typedef {{keys: string[], text: string, act: () => void, shown?: string, once?: boolean}} Key  once: not again while it is held */

/** @param {Key[]} keys */
export function bindKeys(keys) {
  const table = new Map(keys.flatMap((one) => one.keys.map((key) => [key, one])));
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.altKey || target.closest("dialog")) return;
    const typing = target.matches("input[type=search], select");
    if (typing && event.key !== "Escape") return;
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
