// @ts-check
/** In a narrow window the lists beside the slide are opened by buttons, one at a time. */
import { byId } from "./dom.js";

const buttons = [...byId("drawers").querySelectorAll("button")];

/** @param {string} id of the list to open; none opens with an empty one */
function open(id) {
  for (const button of buttons) {
    const own = button.getAttribute("aria-controls") ?? "";
    button.setAttribute("aria-expanded", String(own === id));
    byId(own).classList.toggle("open", own === id);
  }
}

for (const button of buttons) {
  const isOpen = () => button.getAttribute("aria-expanded") === "true";
  button.addEventListener("click", () => open(isOpen() ? "" : button.getAttribute("aria-controls") ?? ""));
}
byId("slide-list").addEventListener("click", () => open("")); // a slide was chosen
