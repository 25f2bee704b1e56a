// What the page asks the node, and the token that it shows if the node wants one. EventSource
// cannot send a token, so the page reads the stream of events itself.

const kept = 'distmsg-operator-token';

export const token = {
	get: () => sessionStorage.getItem(kept),
	set: (text) => sessionStorage.setItem(kept, text),
	forget: () => sessionStorage.removeItem(kept),
};

// Refused is an answer that is an error. wantsToken says that credentials would help.
export class Refused extends Error {
	constructor(status, problem) {
		super(problem.hint ? problem.error + ': ' + problem.hint : problem.error);
		this.wantsToken = status === 401;
	}
}

async function request(path, signal) {
	const headers = token.get() ? { Authorization: 'Bearer ' + token.get() } : {};
	const answer = await fetch('/api/v1/' + path, { headers, signal, cache: 'no-store' }).catch(() => {
		throw new Refused(0, { error: 'the node cannot be reached' });
	});
	if (answer.ok) return answer;
	const problem = await answer.json().catch(() => ({ error: 'the node answers with status ' + answer.status }));
	throw new Refused(answer.status, problem);
}

// ask returns the answer to a question.
export async function ask(name, parameters = {}) {
	const answer = await request(name + '?' + new URLSearchParams(parameters));
	return answer.json();
}

// follow calls heard with each event of a stream, until the stream ends or signal aborts it.
export async function follow(name, signal, heard) {
	const answer = await request(name, signal);
	const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = '';
	for (;;) {
		const { done, value } = await reader.read();
		if (done) return;
		const events = (rest + value).split('\n\n');
		rest = events.pop();
		for (const text of events) {
			const event = parse(text);
			if (event.kind) heard(event.kind, JSON.parse(event.data));
		}
	}
}

// parse reads one event. A comment has no kind.
function parse(text) {
	const event = { kind: '', data: '' };
	for (const line of text.split('\n')) {
		if (line.startsWith('event: ')) event.kind = line.slice(7);
		if (line.startsWith('data: ')) event.data += line.slice(6);
	}
	return event;
}
