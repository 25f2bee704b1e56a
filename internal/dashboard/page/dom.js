// What the other parts use to build elements. Texts come from the network, and an ID may be a piece
// of HTML, so a text is only ever set as a text.

// el makes an element. Children are elements or texts.
export function el(name, attributes = {}, ...children) {
	return fill(document.createElement(name), attributes, children);
}

// svg makes an element of a picture.
export function svg(name, attributes = {}, ...children) {
	return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);
}

function fill(e, attributes, children) {
	for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
	e.append(...children.filter((c) => c !== '' && c != null)); // append makes text nodes of strings
	return e;
}

export const byID = (id) => document.getElementById(id);

// show gives an element new children, unless they would be the same. So a reader's selection, and
// what a screen reader is at, stay while nothing changes.
export function show(e, ...children) {
	const next = document.createElement('div');
	next.append(...children);
	if (next.innerHTML !== e.innerHTML) e.replaceChildren(...next.childNodes);
}

// setText sets a text, unless it is the same. Screen readers would read it again.
export function setText(e, text) {
	if (e.textContent !== text) e.textContent = text;
}

// table makes a table whose first cell of each row names the row. Cells are elements or texts.
export function table(caption, head, rows) {
	const cells = (row) => row.map((cell, i) => (i === 0 ? el('th', { scope: 'row' }, cell) : el('td', { 'data-name': head[i] }, cell)));
	return el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
		el('table', {}, el('caption', { class: 'hidden' }, caption),
			el('thead', {}, el('tr', {}, ...head.map((h) => el('th', { scope: 'col' }, h)))),
			el('tbody', {}, ...rows.map((row) => el('tr', {}, ...cells(row))))));
}

const digits = (x) => (x >= 100 ? x.toFixed(0) : String(+x.toPrecision(2)));

// count formats a number, as in 12k.
export function count(v) {
	if (v == null || Number.isNaN(v)) return '–';
	if (v >= 999_500) return digits(v / 1e6) + 'M';
	if (v >= 9_995) return digits(v / 1e3) + 'k';
	return v >= 10 ? v.toFixed(0) : String(+v.toFixed(1));
}

// seconds formats a duration.
export function seconds(s) {
	if (s == null || Number.isNaN(s)) return '–';
	if (s === 0) return '0 s';
	if (s < 1e-3) return digits(s * 1e6) + ' µs';
	if (s < 1) return digits(s * 1e3) + ' ms';
	if (s < 100) return digits(s) + ' s';
	if (s < 7200) return Math.round(s / 60) + ' min';
	return s < 172_800 ? Math.round(s / 3600) + ' h' : Math.round(s / 86_400) + ' d';
}

// bytes formats a size.
export function bytes(n) {
	if (n < 1000) return n + ' B';
	if (n < 1e6) return digits(n / 1e3) + ' kB';
	return n < 1e9 ? digits(n / 1e6) + ' MB' : digits(n / 1e9) + ' GB';
}

// clock formats a time of day.
export const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });
