"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const picker = document.getElementById("metric");
  const panel = document.getElementById("cell");
  const buttons = new Map();
  for (const button of document.querySelectorAll(".grid button")) {
    buttons.set(Number(button.dataset.cell), button);
  }
  let metric = 0;
  let shown = data.start;

  // A cell's looks: [glyph, text, level, outside] for every metric.
  function paint() {
    document.getElementById("definition").textContent = data.metrics[metric].definition;
    for (const [index, button] of buttons) {
      const [glyph, text, level, outside] = data.cells[index].looks[metric];
      button.textContent = glyph;
      button.setAttribute("aria-label", `${data.cells[index].site}: ${text}${outside ? ", marked" : ""}`);
      button.title = button.getAttribute("aria-label");
      if (level === null) delete button.dataset.level; else button.dataset.level = level;
      if (outside) button.dataset.outside = ""; else delete button.dataset.outside;
    }
  }

  function show(index) {
    buttons.get(shown).setAttribute("aria-pressed", "false");
    buttons.get(shown).tabIndex = -1;
    shown = index;
    buttons.get(index).setAttribute("aria-pressed", "true");
    buttons.get(index).tabIndex = 0;
    const cell = data.cells[index];
    const heading = document.createElement("h3");
    heading.textContent = cell.site;
    const table = document.createElement("table");
    table.className = "facts";
    const rows = cell.figures.concat(
      data.metrics.map((known, n) => [known.label, cell.looks[n][1] + (cell.looks[n][3] ? " !" : "")]));
    for (const [name, value] of rows) {
      const row = table.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      row.append(head);
      row.insertCell().textContent = value;
    }
    panel.replaceChildren(heading, table);
  }

  // The neighbour of a cell in the table that is on the page, stepping over empty places.
  function neighbour(index, down, right) {
    const place = buttons.get(index).closest("td");
    let row = place.parentElement.rowIndex, column = place.cellIndex;
    const rows = place.closest("table").rows;
    for (;;) {
      row += down;
      column += right;
      if (row < 1 || row >= rows.length || column < 1 || column >= rows[row].cells.length) return null;
      const found = rows[row].cells[column].querySelector("button");
      if (found) return found;
    }
  }

  const moves = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };
  for (const [index, button] of buttons) {
    button.tabIndex = -1;
    button.addEventListener("click", () => { show(index); button.focus(); });
    button.addEventListener("focus", () => show(index));
    button.addEventListener("keydown", (event) => {
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      neighbour(index, ...move)?.focus();
    });
  }
  picker.addEventListener("change", () => { metric = picker.selectedIndex; paint(); });
  picker.disabled = false;
  if (buttons.size) { paint(); show(shown); }
})();
