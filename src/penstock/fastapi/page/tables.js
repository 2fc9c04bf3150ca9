// Rows that stay where they are while their numbers change, so that a selection, the focus and the
// place scrolled to survive. All text comes in as text: nothing of it is ever read as HTML.

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Give `parent` as many children as there are items, each filled anew. */
export function fill(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => {
    const child = parent.children[index] ?? parent.appendChild(make());
    update(child, item);
  });
}

/**
 * Fill a table's body.
 *
 * @param {HTMLTableElement} table
 * @param {Array} items one for each row
 * @param {Function} cells of an item: the cells' texts, or {text, sub, share, tone, code}
 * @param {string} nothing what to say without any
 */
export function fillTable(table, items, cells, nothing) {
  const body = table.tBodies[0];
  table.classList.toggle("empty", !items.length);
  if (!items.length) {
    const row = element("tr");
    const cell = row.appendChild(element("td", "nothing", nothing));
    cell.colSpan = 20;
    body.replaceChildren(row);
    return;
  }
  body.querySelector(".nothing")?.closest("tr").remove();
  fill(body, items, () => element("tr"), (row, item) => fillRow(row, cells(item)));
}

function fillRow(row, cells) {
  cells.forEach((given, index) => {
    const cell = row.cells[index] ?? row.appendChild(newCell(index));
    fillCell(cell, typeof given === "string" ? { text: given } : given);
  });
}

function newCell(index) {
  const cell = element(index ? "td" : "th");
  if (!index) cell.scope = "row";
  cell.append(element("span", "text"));
  return cell;
}

function fillCell(cell, { text, sub, share, tone, code }) {
  setText(cell.firstElementChild, text);
  cell.firstElementChild.classList.toggle("code", Boolean(code));
  cell.dataset.tone = tone ?? "";
  if (sub !== undefined) setText(part(cell, "sub"), sub);
  if (share !== undefined) part(cell, "share").style.width = `${Math.round(share * 100)}%`;
}

function part(cell, name) {
  return cell.querySelector(`.${name}`) ?? cell.appendChild(element("span", name));
}

/** Fill a list of terms and values: [term, value, tone]. */
export function fillTerms(list, terms) {
  const make = () => {
    const pair = element("div");
    pair.append(element("dt"), element("dd"));
    return pair;
  };
  fill(list, terms, make, (pair, [term, value, tone]) => {
    setText(pair.firstElementChild, term);
    setText(pair.lastElementChild, value);
    pair.dataset.tone = tone ?? "";
  });
}
