// The search for an ID, and the dry run of a message.
import { ask } from './api.js';
import { byID, el, seconds, show, table } from './dom.js';

// answer shows what a form's question says, or why there is no answer.
function answer(form, place, question) {
	byID(form).addEventListener('submit', async (event) => {
		event.preventDefault();
		const button = byID(form).querySelector('button');
		button.disabled = true;
		place.setAttribute('aria-busy', 'true');
		try {
			show(place, ...(await question()));
		} catch (err) {
			show(place, el('p', { class: 'bad' }, '✕ ' + err.message));
		} finally {
			button.disabled = false;
			place.removeAttribute('aria-busy');
		}
	});
}

const words = {
	bound: ['✓', 'is bound', 'good'],
	not_bound: ['✕', 'is not bound: nobody has it', 'warn'],
	unknown: ['?', 'may be bound or not: the registry does not answer', 'bad'],
};

const believed = (b) => (b ? `session ${b.session.slice(0, 8)}…, epoch ${b.epoch}, at ${b.nodes.join(', ') || 'no node now'}` : '–');

function where(w, missing) {
	const [mark, text, grade] = words[w.state] || ['?', w.state, 'warn'];
	const parts = [el('p', { class: 'big ' + grade }, mark + ' ', el('b', {}, w.id), ' ' + text)];
	if (w.state === 'bound') {
		parts.push(el('dl', { class: 'facts' },
			el('dt', {}, 'Node'), el('dd', {}, (w.nodes || []).join(', ') || 'none now: its session may be resumed'),
			el('dt', {}, 'Session'), el('dd', {}, el('code', {}, w.session)),
			el('dt', {}, 'Epoch'), el('dd', {}, String(w.epoch))));
	}
	parts.push(el('p', { class: w.disagree ? 'bad' : 'soft' }, w.disagree
		? '✕ A node believes something else than the registry. That is right for an instant while an ID moves. If it stays, messages from there are returned and routed again.'
		: 'No node believes something else than the registry.'));
	if (w.beliefs.length > 0) {
		parts.push(table('What the nodes know of it', ['Node', 'Own sessions', 'Route cache', 'Differs'],
			w.beliefs.map((b) => [b.node, believed(b.table), believed(b.route), b.differs || 'no'])));
	}
	return parts.concat(unanswered(missing));
}

const unanswered = (missing) => missing.map((m) => el('p', { class: 'warn' }, `? no answer from ${m.node}: ${m.why}`));

function trace(t) {
	const acked = t.code === 'acked';
	return [
		el('p', { class: 'big ' + (acked ? 'good' : 'bad') }, (acked ? '✓ ' : '✕ ') + `${t.from} → ${t.to}: `, el('b', {}, t.code), ` after ${seconds(t.total_seconds)}`),
		el('p', { class: 'soft' }, 'No message was sent: the connection of the receiver answered, if it got that far.'),
		table('The steps of the dry run', ['Step', 'Node', 'Decision', 'At', 'Took'],
			t.hops.map((h) => [h.step, h.node, h.decision + (h.code ? ` (${h.code})` : ''), seconds(h.at_seconds), seconds(h.took_seconds)])),
		...unanswered(t.missing),
	];
}

// start makes the forms work.
export function start() {
	answer('where', byID('found'), async () => {
		const all = await ask('where', { id: byID('id').value });
		byID('to').value = byID('id').value;
		return where(all.answers[0], all.missing);
	});
	answer('trace', byID('traced'), async () => trace(await ask('trace', { from: byID('from').value, to: byID('to').value })));
}
