"use strict";
(() => {
  const store = JSON.parse(document.getElementById("store").textContent);
  const inPage = new Map([...document.querySelectorAll("img[data-picture]")].map((img) => [img.dataset.picture, img.src]));

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  const picture = (key, alt) => {
    const [uri, width, height, sharp] = store.pictures[key];
    const img = make("img", { src: uri || inPage.get(key), width, height, alt, loading: "lazy" });
    if (sharp) img.className = "sharp";
    return img;
  };

  const figure = (told, [name, chance, keys], alt) => {
    const caption = make("figcaption", {}, told.pairs ? chance.toFixed(4) : `${(100 * chance).toFixed(1)}\u00a0%`, make("span", { class: "name" }, name));
    if (!keys.length) return make("figure", { title: name }, caption);
    const sides = make("div", { class: "sides" }, ...keys.map((key) => picture(key, alt)));
    return make("figure", { title: name }, sides, caption);
  };

  // The images of a cell of the confusion matrix.
  const open = (chapter, cell, count) => {
    const told = store.chapters[chapter];
    const panel = document.getElementById(`${chapter}-panel`);
    const [label, guess] = cell.split(",").map((part) => told.classes[Number(part)]);
    const samples = told.cells[cell] || [];
    const title = label === guess ? `${label}, taken for what it is: ${count}` : `${label}, taken for ${guess}: ${count}`;
    const what = told.pairs ? "the score" : "the probability of the guess";
    const missing = Number(count.replaceAll(",", "")) - samples.length;
    const more = missing > 0 ? ` ${missing.toLocaleString("en")} more have no place in this file.` : "";
    const close = make("button", { type: "button" }, "close");
    close.addEventListener("click", () => shut(panel));
    panel.replaceChildren(
      make("h3", { tabindex: "-1" }, title),
      make("p", { class: "small quiet" }, `With ${what}; ${label === guess ? "the most doubtful" : "the surest"} first.${more}`),
      make("div", { class: told.pairs ? "pictures twins" : "pictures" }, ...samples.map((one) => figure(told, one, title))),
      make("div", { class: "chips", style: "margin-top: 10px" }, close),
    );
    panel.hidden = false;
    const box = document.getElementById(`${chapter}-matrix`);
    for (const old of box.querySelectorAll(".open")) old.classList.remove("open");
    const opened = box.querySelector(`[data-cell="${cell}"]`);
    if (opened) opened.classList.add("open");
    panel.scrollIntoView({ block: "nearest" });
  };

  const shut = (panel) => {
    panel.hidden = true;
    const opened = panel.parentElement.querySelector(".open");
    if (opened) { opened.classList.remove("open"); opened.focus(); }
  };

  // Arrow keys walk over the matrix, so that the Tab key does not have to pass every cell: up and down to the nearest cell
  // of the next row, left and right along the row. Few cells of a good model have anything but the diagonal beside them.
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const walk = (td, [down, right]) => {
    const cells = [...td.closest("tbody").querySelectorAll("td[data-cell]")].map((cell) => {
      const rows = cell.parentElement.sectionRowIndex - td.parentElement.sectionRowIndex;
      const columns = cell.cellIndex - td.cellIndex;
      return { cell, ahead: rows * down + columns * right, aside: Math.abs(down ? columns : rows) };
    }).filter((one) => one.ahead > 0);
    const along = right ? cells.filter((one) => !one.aside) : [];
    const [next] = (along.length ? along : cells).sort((a, b) => a.ahead - b.ahead || a.aside - b.aside);
    if (!next) return;
    td.tabIndex = -1;
    next.cell.tabIndex = 0;
    next.cell.focus();
  };

  const cellOf = (event) => event.target.closest("[data-cell]");
  document.addEventListener("click", (event) => {
    const found = cellOf(event);
    if (found) open(found.dataset.chapter || found.closest("[data-chapter]").dataset.chapter, found.dataset.cell, found.dataset.count || found.textContent.trim());
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && event.target.closest(".confusion")) {
      for (const panel of document.querySelectorAll(".panel:not([hidden])")) shut(panel);
    }
    const td = cellOf(event);
    if (!td || td.tagName !== "TD") return;
    if (event.key === "Enter" || event.key === " ") td.click();
    else if (steps[event.key]) walk(td, steps[event.key]);
    else return;
    event.preventDefault();
  });

  // Tables whose heads are buttons are sorted by them; empty cells stay last.
  for (const button of document.querySelectorAll("table.sortable th button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const body = head.closest("table").tBodies[0];
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const value = (row) => {
        const text = row.cells[head.cellIndex].dataset.value;
        return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
      };
      const order = (a, b) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
      };
      body.append(...[...body.rows].map((row) => [value(row), row]).sort((a, b) => order(a[0], b[0])).map((pair) => pair[1]));
    });
  }

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not([open])")) { details.open = true; details.dataset.forPrint = ""; }
  });
  addEventListener("afterprint", () => {
    for (const details of document.querySelectorAll("details[data-for-print]")) { details.open = false; delete details.dataset.forPrint; }
  });
  document.body.dataset.ready = "yes";
})();
