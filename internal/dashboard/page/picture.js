// The picture of nodes and links. Screen readers get it as one sentence; the table of nodes has the
// rest.
import { svg, count } from './dom.js';

// marks are what stands in a node: nobody has to see colours.
export const states = {
	ready: { mark: '✓', text: 'ready', grade: 'good' },
	draining: { mark: '▼', text: 'draining', grade: 'note' },
	starting: { mark: '…', text: 'starting', grade: 'note' },
	stopping: { mark: '…', text: 'stopping', grade: 'note' },
	no_answer: { mark: '?', text: 'does not answer', grade: 'bad' },
	gone: { mark: '✕', text: 'gone', grade: 'bad' },
};

export const stateOf = (node) => states[node.state] || { mark: '?', text: node.state, grade: 'warn' };

const width = 420, height = 300;

// places puts the nodes on an ellipse, the first at the top.
function places(nodes) {
	const at = new Map();
	nodes.forEach((n, i) => {
		const angle = (2 * Math.PI * i) / nodes.length - Math.PI / 2;
		const far = nodes.length === 1 ? 0 : 1;
		at.set(n.node, { x: width / 2 + far * 140 * Math.cos(angle), y: height / 2 - 8 + far * 100 * Math.sin(angle) });
	});
	return at;
}

function link(l, at) {
	const a = at.get(l.a), b = at.get(l.b);
	if (!a || !b) return [];
	const kind = l.half ? 'half' : l.up ? (l.queued_bytes > 1 << 20 ? 'busy' : 'up') : 'down';
	const what = { up: 'link', busy: 'link with a long queue', half: 'link at one end only', down: 'no link' }[kind];
	const parts = [svg('line', { class: 'link ' + kind, x1: a.x, y1: a.y, x2: b.x, y2: b.y }, svg('title', {}, `${l.a} – ${l.b}: ${what}${l.why ? ', ' + l.why : ''}`))];
	if (kind !== 'up') {
		parts.push(svg('text', { class: 'break ' + kind, x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 + 6 }, kind === 'busy' ? '!' : '✕'));
	}
	return parts;
}

const short = (name) => (name.length > 14 ? name.slice(0, 13) + '…' : name);

function node(n, p, rate, size) {
	const state = stateOf(n);
	return svg('g', { class: 'node ' + state.grade + ' ' + n.state, transform: `translate(${p.x} ${p.y})` },
		svg('title', {}, `${n.node}: ${state.text}`),
		svg('circle', { r: size }), svg('text', { class: 'mark', y: size / 3 }, state.mark),
		svg('text', { class: 'name', y: size + 16 }, short(n.node)),
		svg('text', { class: 'rate', y: size + 31 }, state.text === 'ready' ? (rate == null ? '' : count(rate) + '/s') : state.text));
}

// draw draws the nodes and links of a view. rates are messages a second, by node.
export function draw(picture, view, rates) {
	const at = places(view.nodes);
	const size = view.nodes.length > 12 ? 13 : 22;
	picture.replaceChildren(
		...view.links.flatMap((l) => link(l, at)),
		...view.nodes.map((n) => node(n, at.get(n.node), rates.get(n.node), size)));
	const broken = view.links.filter((l) => !l.up);
	picture.setAttribute('aria-label', `${view.nodes.length} nodes: ` + view.nodes.map((n) => `${n.node} ${stateOf(n).text}`).join(', ') +
		`. ${view.links.length - broken.length} links are up` + (broken.length ? '; there is none between ' + broken.map((l) => `${l.a} and ${l.b}`).join(', ') : '') + '.');
}
