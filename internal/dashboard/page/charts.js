// The charts of the last ten minutes. Samples come from the nodes, two seconds in each.
import { byID, el, count, seconds, show, svg, table } from './dom.js';

const step = 2, span = 600, least = 60; // seconds
const most = 8; // lines
const dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3], [14, 6], [4, 2], [1, 4], [6, 2, 2, 2]];

// samples holds what was heard, by node and time. A sample that comes twice counts once.
const samples = new Map();

export function hear(all) {
	for (const s of all) {
		const of = samples.get(s.node) || new Map();
		of.set(Math.round(Date.parse(s.at) / 1000 / step) * step, s);
		samples.set(s.node, of);
	}
	const oldest = newest() - span;
	for (const [node, of] of samples) {
		for (const at of of.keys()) if (at < oldest) of.delete(at);
		if (of.size === 0) samples.delete(node);
	}
}

const newest = () => Math.max(0, ...[...samples.values()].flatMap((of) => [...of.keys()]));

// latest returns what f says of the newest sample of each node, if that is not old.
export function latest(f) {
	const now = newest(), all = new Map();
	for (const [node, of] of samples) {
		const s = of.get(now) || of.get(now - step) || of.get(now - 2 * step);
		if (s) all.set(node, f(s));
	}
	return all;
}

const rate = (s, n) => (n || 0) / (s.seconds || step);
export const sends = (s) => rate(s, s.sends);
export const slowest = (s) => s.ack_round_trip?.p99_seconds ?? null;

// failures returns how many messages a second did not end acked, by outcome.
export function failures(s) {
	return Object.entries(s.outcomes || {}).filter(([code]) => code !== 'acked').map(([code, n]) => [code, rate(s, n)]);
}

// perNode makes a line for each node: of many, those with the greatest values.
function perNode(value) {
	return (times) => {
		const lines = [...samples].map(([node, of]) => ({ name: node, values: times.map((at) => (of.has(at) ? value(of.get(at)) : null)) }));
		lines.sort((a, b) => greatest(b) - greatest(a));
		return lines.slice(0, most).sort((a, b) => (a.name < b.name ? -1 : 1));
	};
}

const greatest = (line) => Math.max(0, ...line.values.filter((v) => v != null));

// perOutcome makes a line for each outcome but acked, over all nodes.
function perOutcome(times) {
	const lines = new Map();
	const known = times.map((at) => ([...samples.values()].some((of) => of.has(at)) ? 0 : null));
	times.forEach((at, i) => {
		for (const of of samples.values()) {
			for (const [code, n] of of.has(at) ? failures(of.get(at)) : []) {
				if (!lines.has(code)) lines.set(code, { name: code, values: [...known] });
				lines.get(code).values[i] += n;
			}
		}
	});
	return [...lines.values()].sort((a, b) => greatest(b) - greatest(a)).slice(0, most);
}

const charts = [
	{ id: 'rate', title: 'Messages a second', hint: 'Sends that each node has accepted.', text: (v) => count(v), lines: perNode(sends) },
	{ id: 'latency', title: 'Ack round trip, 99th percentile', hint: 'From the delivery to the ack, by node.', text: seconds, lines: perNode(slowest) },
	{ id: 'outcomes', title: 'Messages a second that were not acked', hint: 'By outcome, all nodes together.', text: (v) => count(v), lines: perOutcome },
];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();

function options(chart, lines, wide) {
	const axis = { stroke: colour('soft'), grid: { stroke: colour('line'), width: 1 }, ticks: { stroke: colour('line'), width: 1 }, font: '12px system-ui, sans-serif' };
	return {
		width: wide, height: 190, legend: { show: false }, cursor: { points: { size: 6 } },
		scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
		axes: [
			{ ...axis, space: 70, values: (_, all) => all.map((v) => new Date(v * 1000).toLocaleTimeString([], { hour12: false, hour: '2-digit', minute: '2-digit', ...(v % 60 ? { second: '2-digit' } : {}) })) },
			{ ...axis, size: 62, values: (_, all) => all.map((v) => (v == null ? '' : chart.text(v))) },
		],
		series: [{}, ...lines.map((line, i) => ({ stroke: colour('c' + i), width: 2, dash: dashes[i], points: { show: false }, spanGaps: false }))],
	};
}

// build makes the elements of the charts, once.
export function build() {
	for (const chart of charts) {
		chart.place = el('div', { class: 'chart', role: 'img', 'aria-label': chart.title });
		chart.legend = el('div', {});
		byID('charts').append(el('figure', { class: 'card' },
			el('figcaption', {}, el('h2', {}, chart.title), el('p', { class: 'soft' }, chart.hint)), chart.place, chart.legend));
	}
	matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => draw(true));
	new ResizeObserver(() => draw()).observe(byID('charts'));
}

// draw draws the charts. again draws them from scratch.
export function draw(again = false) {
	const now = newest();
	if (now === 0) return;
	const oldest = Math.min(now - least, ...[...samples.values()].flatMap((of) => [...of.keys()]));
	const times = Array.from({ length: (now - oldest) / step + 1 }, (_, i) => oldest + i * step);
	for (const chart of charts) {
		const lines = chart.lines(times), wide = chart.place.clientWidth;
		const form = lines.map((l) => l.name).join('\n') + '\n' + lines.length;
		if (again || chart.form !== form || !chart.plot) {
			chart.plot?.destroy();
			chart.place.replaceChildren();
			chart.plot = new uPlot(options(chart, lines, wide), [times, ...lines.map((l) => l.values)], chart.place);
			chart.form = form;
		} else {
			if (chart.plot.width !== wide) chart.plot.setSize({ width: wide, height: 190 });
			chart.plot.setData([times, ...lines.map((l) => l.values)]);
		}
		describe(chart, lines);
	}
}

// describe shows the lines of a chart as a table, which is its legend, too.
function describe(chart, lines) {
	const last = (line) => line.values.findLast((v) => v != null);
	const rows = lines.map((line, i) => [el('span', {}, swatch(i), line.name), chart.text(last(line)), chart.text(greatest(line))]);
	show(chart.legend, lines.length > 0 ? table(chart.title, [chart.id === 'outcomes' ? 'Outcome' : 'Node', 'Now', 'Most'], rows) : el('p', { class: 'soft' }, 'None in the last ten minutes.'));
	const text = `${chart.title} in the last ten minutes. ` + (lines.length > 0 ? 'The values are in the table below.' : 'There were none.');
	if (chart.place.getAttribute('aria-label') !== text) chart.place.setAttribute('aria-label', text);
}

// swatch is a piece of the line, with its colour and dashes.
function swatch(i) {
	return svg('svg', { class: 'swatch', viewBox: '0 0 28 8', 'aria-hidden': 'true' },
		svg('line', { x1: 0, y1: 4, x2: 28, y2: 4, class: 'c' + i, 'stroke-dasharray': dashes[i].join(' ') }));
}
