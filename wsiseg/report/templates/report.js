(() => {
  "use strict";
  const root = document.documentElement;
  const get = (id) => document.getElementById(id);
  for (const form of document.querySelectorAll("form.tools")) {
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  const safe = get("safe");
  if (safe) {
    const key = "wsiseg-safe-colours";
    try {
      safe.checked = localStorage.getItem(key) === "1";
    } catch { /* pages opened from a file may have no storage */ }
    const apply = () => root.classList.toggle("safe", safe.checked);
    safe.addEventListener("change", () => {
      apply();
      try {
        localStorage.setItem(key, safe.checked ? "1" : "0");
      } catch { /* as above */ }
    });
    apply();
  }

  const map = get("map");
  if (map) {
    const opacity = get("opacity");
    const tissue = get("tissue");
    const apply = () => {
      root.style.setProperty("--over", map.checked ? opacity.value / 100 : 0);
      root.style.setProperty("--outline", tissue && tissue.checked ? 1 : 0);
    };
    for (const input of [map, opacity, tissue]) if (input) input.addEventListener("input", apply);
    apply();
  }

  const list = get("slides");
  const search = get("search");
  if (list && search) {
    const slides = [...list.querySelectorAll("article")].map((row) => ({
      row,
      text: row.textContent.toLowerCase(),
      areas: row.dataset.areas.split(" ").map(Number),
    }));
    const value = (slide, key) => {
      if (key === "name") return slide.row.dataset.name;
      if (/^\d+$/.test(key)) return slide.areas[Number(key)] || 0;
      const text = slide.row.dataset[key];
      return text === "" ? Infinity : Number(text);
    };
    const sort = () => {
      const chosen = get("sort").selectedOptions[0];
      const direction = "up" in chosen.dataset ? 1 : -1;
      const order = slides.map((slide, index) => ({ slide, index, key: value(slide, chosen.value) }));
      order.sort((a, b) => {
        if (typeof a.key === "string") return a.key.localeCompare(b.key, undefined, { numeric: true });
        return a.key === b.key ? a.index - b.index : direction * (a.key < b.key ? -1 : 1);
      });
      list.append(...order.map(({ slide }) => slide.row));
    };
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const state = get("show").value;
      let count = 0;
      for (const { row, text } of slides) {
        const fits = (!state || row.dataset.state === state) && words.every((w) => text.includes(w));
        row.hidden = !fits;
        count += fits;
      }
      get("count").textContent = `${count} of ${slides.length} slides`;
    };
    get("sort").addEventListener("change", sort);
    get("show").addEventListener("change", filter);
    search.addEventListener("input", filter);
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.matches("input, select")) return;
      event.preventDefault();
      search.focus();
    });
    filter();
  }
})();
