// @ts-check
/** What the page says: passing notices over the picture, and the slide's own note, which stays. */
import { byId, make } from "./dom.js";

/** Show a notice over the picture until the next one. @param {string} text @param {boolean} [bad] */
export function tell(text, bad = false) {
  byId("notice").replaceChildren(...withCode(text));
  byId("notices").hidden = !text;
  byId("notices").classList.toggle("bad", Boolean(text) && bad);
}

/** Add a sentence to the notice that is shown. @param {string} text */
export const add = (text) => byId("notice").append(` ${text}`);

/** Show a notice unless one that reports a fault is there. @param {string} text */
export function mention(text) {
  if (!byId("notices").classList.contains("bad")) tell(text);
}

/** Show the note of the slide above the picture until another slide is opened. @param {string} text */
export function note(text) {
  byId("note").replaceChildren(...withCode(text));
  byId("note").hidden = !text;
}

/** What is between backticks is code, as in the messages of the terminal. @param {string} text */
function withCode(text) {
  return text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));
}

byId("notice-close").addEventListener("click", () => tell(""));
