import { ask, follow, token } from './api.js';
import * as charts from './charts.js';
import { byID, bytes, clock, count, el, seconds, setText, show, table } from './dom.js';
import { start as startFinding } from './find.js';
import { draw as drawPicture, stateOf } from './picture.js';

const late = 7; // seconds without a view: what the page shows may be old
const grades = { bad: ['✕', 'Bad'], warn: ['!', 'Look at it'], note: ['i', 'Note'], good: ['✓', 'Well'] };

let heardAt = 0; // when the latest view came
let worry = ''; // why there is none

// showView shows all that a view says.
function showView(view) {
	heardAt = performance.now();
	worry = '';
	byID('login').hidden = true;
	byID('forget').hidden = !token.get();
	document.documentElement.dataset.node = view.node;
	setText(byID('viewpoint'), 'as node ' + view.node + ' sees it');
	document.title = (view.grade === 'good' ? '' : grades[view.grade][0] + ' ') + 'distmsg ' + view.node;
	charts.hear(view.samples);
	const verdict = byID('verdict'), [mark, word] = grades[view.grade];
	verdict.className = 'verdict ' + view.grade;
	setText(verdict, `${mark} ${word}: ${view.summary}`);
	const rates = charts.latest(charts.sends);
	showTiles(view, rates);
	showTroubles(view.troubles);
	drawPicture(byID('picture'), view, rates);
	showNodes(view, rates);
	showSlowest(view.slowest);
	showLimits(view.limits);
	charts.draw();
	showConnection();
}

function showTiles(view, rates) {
	const sum = (all) => [...all.values()].reduce((a, b) => a + b, 0);
	const failed = sum(charts.latest((s) => charts.failures(s).reduce((a, [, n]) => a + n, 0)));
	const slowest = Math.max(-1, ...[...charts.latest(charts.slowest).values()].filter((v) => v != null));
	const has = (state) => view.nodes.filter((n) => n.state === state).length;
	const tiles = [
		['Nodes ready', `${has('ready')} of ${view.nodes.length}`, has('ready') < view.nodes.length ? 'warn' : ''],
		['Messages a second', count(sum(rates)), ''],
		['Not acked, a second', count(failed), view.troubles.find((t) => t.what.includes('of messages end'))?.grade || ''],
		['Ack round trip, p99', slowest < 0 ? '–' : seconds(slowest), ''],
		['Sessions', count(view.nodes.reduce((n, v) => n + v.sessions, 0)), ''],
		['IDs', count(view.nodes.reduce((n, v) => n + v.ids, 0)), ''],
	];
	show(byID('tiles'), ...tiles.map(([name, value, grade]) => el('div', { class: 'tile ' + grade }, el('dt', {}, name), el('dd', {}, value))));
}

function showTroubles(troubles) {
	const items = troubles.map((t) => el('li', { class: t.grade },
		el('span', { class: 'grade' }, grades[t.grade].join(' ')),
		el('div', {}, el('p', { class: 'what' }, t.what), el('p', {}, t.do), t.nodes.every((n) => t.what.includes(n)) ? '' : el('p', { class: 'soft' }, 'On: ' + t.nodes.join(', ')))));
	show(byID('troubles'), ...(items.length > 0 ? items : [el('li', { class: 'good' }, el('span', { class: 'grade' }, '✓ Well'), el('div', {}, el('p', { class: 'what' }, 'Nothing is wrong, and there is nothing to do.')))]));
}

const state = (n) => el('span', { class: 'state ' + stateOf(n).grade }, stateOf(n).mark + ' ' + stateOf(n).text);

function showNodes(view, rates) {
	const links = (n) => view.links.filter((l) => l.a === n.node || l.b === n.node);
	const slow = charts.latest(charts.slowest);
	const answers = (n) => n.state !== 'gone' && n.state !== 'no_answer';
	const rows = view.nodes.map((n) => [n.node, state(n),
		...(answers(n)
			? [count(rates.get(n.node)), seconds(slow.get(n.node)), `${links(n).filter((l) => l.up).length} of ${links(n).length}`, count(n.sessions), count(n.conns), count(n.ids),
				count(n.pending_acks), bytes(n.memory_held_bytes), seconds(n.uptime_seconds), n.addr || '–']
			: ['–', '–', '–', '–', '–', '–', '–', '–', '–', absence(n)])]);
	show(byID('nodes'), table('Nodes', ['Node', 'State', 'Messages/s', 'p99', 'Links', 'Sessions', 'Connections', 'IDs', 'Wait for ack', 'Memory held', 'Up for', 'Clients connect to'], rows));
}

// absence says what is known of a node that does not answer.
function absence(n) {
	const seen = n.state === 'gone' && n.seen ? 'last seen ' + clock(n.seen) : '';
	return [seen, n.why].filter(Boolean).join(': ') || '–';
}

function showSlowest(sessions) {
	const rows = sessions.map((s) => [el('code', {}, s.session.slice(0, 8) + '…'), s.identity || '–', s.node, bytes(s.queued_bytes), count(s.pending_acks), seconds(Math.round(s.silent_seconds * 10) / 10), count(s.ids), s.remotes.join(', ') || '–']);
	show(byID('slowest'), rows.length > 0 ? table('Slowest sessions', ['Session', 'Identity', 'Node', 'Queued', 'Wait for ack', 'Silent for', 'IDs', 'From'], rows) : el('p', {}, 'There are no sessions.'));
}

function showLimits(limits) {
	const who = (l) => (l.other ? '(others)' : l.identity || '(no name)');
	const rows = limits.map((l) => [who(l), l.limit, l.node, count(l.times)]);
	show(byID('limits'), rows.length > 0 ? table('Limits that clients have reached', ['Identity', 'Limit', 'Node', 'Times'], rows) : el('p', {}, 'None.'));
}

// showConnection says whether what the page shows is true now.
function showConnection() {
	const age = (performance.now() - heardAt) / 1000;
	const old = heardAt > 0 && age > late;
	document.body.classList.toggle('old', old || (heardAt > 0 && worry !== ''));
	let text = heardAt === 0 ? 'Connecting…' : 'Live';
	if (worry) text = worry + (heardAt > 0 ? ' What is below is old.' : '') + ' Trying again.';
	else if (old) text = 'The node says nothing. What is below is old.';
	setText(byID('connection'), text);
}

// login asks for a token.
function login(why) {
	byID('login').hidden = false;
	setText(byID('login-why'), why);
	setText(byID('connection'), 'The node wants to know who you are.');
	byID('token').focus();
	return new Promise((resolve) => {
		byID('login').addEventListener('submit', (event) => {
			event.preventDefault();
			token.set(byID('token').value.trim());
			byID('token').value = '';
			resolve();
		}, { once: true });
	});
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + '.';
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// live shows what the node says, and connects again whenever that ends.
async function live() {
	for (let pause = 250; ; pause = Math.min(2 * pause, 4000)) {
		try {
			charts.hear((await ask('history')).answers);
			await follow('live', undefined, (kind, view) => {
				pause = 250;
				if (kind === 'view') showView(view);
			});
			worry = 'The node has ended the connection.';
		} catch (err) {
			if (err.wantsToken) {
				await login(err.message);
				continue;
			}
			worry = sentence(err.message);
		}
		showConnection();
		await wait(pause);
	}
}

byID('forget').addEventListener('click', () => {
	token.forget();
	location.reload();
});
charts.build();
startFinding();
setInterval(showConnection, 1000);
live();
