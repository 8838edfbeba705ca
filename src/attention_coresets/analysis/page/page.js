"use strict";
// Each panel's controls choose rows of its own table; its chart, its count and its table show these rows.

const commands = JSON.parse(document.getElementById("commands").textContent);
const shown = new Map(); // panel's name -> {rows, view}: what is drawn at the moment

function unpacked(columns, unit) {
  const names = Object.keys(columns);
  const values = names.map(name => columns[name].numbers ?? columns[name].places.map(at => columns[name].words[at]));
  const count = names.length ? values[0].length : 0;
  return Array.from({ length: count }, (_, at) => {
    const row = Object.fromEntries(names.map((name, i) => [name, values[i][at]]));
    row.interval = row.low == null ? "none" : `${short(row.low)} to ${short(row.high)}`;
    row.over = `${row.units} ${row.unit ?? unit}`;
    row.command = commands[row.experiment];
    return row;
  });
}

const short = number => String(Number(number.toPrecision(4)));
const distinct = values => [...new Set(values)].sort((a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b))));

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function control(label, options, title = String) {
  const select = element("select");
  for (const option of options) select.append(element("option", { value: String(option), textContent: title(option) }));
  return [select, element("label", {}, label, select)];
}

class Panel {
  constructor(content) {
    Object.assign(this, content);
    this.all = unpacked(content.rows, content.unit);
    delete this.rows;
    this.place = document.getElementById(content.name);
    this.chosen = {};
    this.arms = new Set(this.start);
    this.axis = Object.keys(this.against)[0];
    this.controls = this.place.querySelector(".controls");
    this.place.querySelector(".download").addEventListener("click", () => download(this.name, this.all));
    this.place.querySelector(".rows").addEventListener("toggle", () => this.fillTable());
    this.update();
  }

  // Values of the columns picked one after the other, each among those that the ones before it leave; returns the rows.
  choose() {
    let rows = this.all;
    this.options = {};
    for (const name of Object.keys(this.pick)) {
      if (name === this.against[this.axis]?.[2]) continue; // it is the axis
      const options = distinct(rows.map(row => row[name]));
      this.options[name] = options;
      if (!options.includes(this.chosen[name])) this.chosen[name] = this.first(name, options, rows);
      rows = rows.filter(row => row[name] === this.chosen[name]);
    }
    return rows;
  }

  // Where a value is chosen for the reader, the one of the page's choice, or else with most places on the axis.
  first(name, options, rows) {
    if (options.includes(this.begin[name])) return this.begin[name];
    const counts = options.map(option => distinct(rows.filter(row => row[name] === option).map(row => row[this.axis])).length);
    return options[counts.indexOf(Math.max(...counts))];
  }

  update() {
    const focus = document.activeElement?.dataset?.name;
    const found = this.choose();
    this.draw_controls(found);
    if (focus && this.place.contains(this.controls)) this.controls.querySelector(`[data-name="${focus}"]`)?.focus();
    const rows = this.several ? found.filter(row => this.arms.has(row[this.several])) : found;
    for (const row of rows) row.x = row[this.axis];
    this.show(rows);
  }

  draw_controls(found) {
    const made = [];
    if (Object.keys(this.against).length > 1) {
      const usable = Object.keys(this.against).filter(name => name === this.axis || distinct(this.all.map(row => row[name])).length > 1);
      const [select, label] = control("Horizontal axis", usable, name => this.against[name][0]);
      made.push(this.wired(select, label, "axis", this.axis, value => (this.axis = value)));
    }
    for (const [name, options] of Object.entries(this.options)) {
      if (options.length === 1) {
        made.push(element("span", { className: "alone" }, element("span", { textContent: this.pick[name] }), String(options[0])));
        continue;
      }
      const [select, label] = control(this.pick[name], options);
      const set = value => (this.chosen[name] = options.find(option => String(option) === value));
      made.push(this.wired(select, label, name, String(this.chosen[name]), set));
    }
    if (this.several) made.push(this.boxes(distinct(found.map(row => row[this.several]))));
    this.controls.replaceChildren(...made);
  }

  wired(select, label, name, value, set) {
    select.dataset.name = name;
    select.value = value;
    select.addEventListener("change", () => { set(select.value); this.update(); });
    return label;
  }

  boxes(arms) {
    const ticked = arms.filter(arm => this.arms.has(arm));
    if (!ticked.length && arms.length) { // none of those picked was run here
      arms.slice(0, 6).forEach(arm => this.arms.add(arm));
      return this.boxes(arms);
    }
    const list = element("div", { className: "arms" });
    for (const arm of arms) {
      const box = element("input", { type: "checkbox", checked: this.arms.has(arm) });
      box.dataset.name = `arm ${arm}`;
      box.addEventListener("change", () => { box.checked ? this.arms.add(arm) : this.arms.delete(arm); this.update(); });
      list.append(element("label", {}, box, arm));
    }
    const every = element("button", { type: "button", className: "every", textContent: "all" });
    every.addEventListener("click", () => { arms.forEach(arm => this.arms.add(arm)); this.update(); });
    const one = element("button", { type: "button", textContent: "only the first" });
    one.addEventListener("click", () => { this.arms = new Set(arms.slice(0, 1)); this.update(); });
    const fold = element("details", { open: this.open ?? false }, element("summary", { textContent: `Arms: ${ticked.length} of ${arms.length}` }), list, every, " ", one);
    fold.addEventListener("toggle", () => (this.open = fold.open));
    return fold;
  }

  async show(rows) {
    this.rows_shown = rows;
    this.place.querySelector(".count").textContent = `${rows.length} point${rows.length === 1 ? "" : "s"} `;
    this.fillTable();
    const [title, scale] = this.against[this.axis] ?? ["", "log"];
    const spec = withAxis(structuredClone(this.spec), title, scale, distinct(rows.map(row => row.x)), distinct(rows.map(row => row.arm)));
    spec.datasets = { rows };
    if (spec.height.step) spec.height = spec.height.step * distinct(rows.map(row => row.arm)).length;
    const options = { renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false } };
    const drawn = (this.drawn = vegaEmbed(this.place.querySelector(".chart"), spec, options));
    const { view } = await drawn;
    if (drawn === this.drawn) shown.set(this.name, { rows, view });
    else view.finalize();
  }

  fillTable() {
    const fold = this.place.querySelector(".rows");
    if (!fold.open) return;
    const rows = this.rows_shown.slice(0, 500);
    const names = rows.length ? Object.keys(rows[0]).filter(name => name !== "x") : [];
    const head = element("tr", {}, ...names.map(name => element("th", { scope: "col", textContent: name })));
    const body = rows.map(row => element("tr", {}, ...names.map(name => element("td", { textContent: row[name] ?? "–" }))));
    const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
    fold.querySelector(".scroll").replaceChildren(table);
  }
}

// The chart's specification with the axis that was picked. Arms are listed, so that their colours and marks have one legend.
function withAxis(node, title, scale, values, arms) {
  if (node === null || typeof node !== "object") return node;
  if (node.field === "x") {
    node.title = title;
    node.scale.type = scale;
    if (values.length <= 12) node.axis = { ...node.axis, values };
  }
  if (node.field === "arm" && node.scale) node.scale.domain = arms;
  Object.values(node).forEach(part => withAxis(part, title, scale, values, arms));
  return node;
}

function download(name, rows) {
  const names = Object.keys(rows[0] ?? {}).filter(column => column !== "x");
  const cell = value => (value == null ? "" : /[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  const lines = [names.join(","), ...rows.map(row => names.map(column => cell(row[column])).join(","))];
  const link = element("a", { href: URL.createObjectURL(new Blob([lines.join("\n")], { type: "text/csv" })), download: `${name}.csv` });
  link.click();
  URL.revokeObjectURL(link.href);
}

const wanted = document.getElementById("wanted");
wanted?.addEventListener("change", () => {
  for (const row of document.querySelectorAll("#verdicts tbody tr")) row.hidden = wanted.value !== "" && row.dataset.verdict !== wanted.value;
});

const panels = [...document.querySelectorAll("script.panel")].map(script => new Panel(JSON.parse(script.textContent)));
