'use strict';
(() => {
	const charts = JSON.parse(document.getElementById('data').textContent) || [];
	const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();

	// number formats a value in the unit of its axis.
	function number(v, unit) {
		if (v == null) return '–';
		const digits = (x) => (x >= 100 ? x.toFixed(0) : String(+x.toPrecision(3)));
		if (unit === 's') {
			if (v === 0) return '0';
			if (v < 1e-6) return digits(v * 1e9) + ' ns';
			if (v < 1e-3) return digits(v * 1e6) + ' µs';
			if (v < 1) return digits(v * 1e3) + ' ms';
			return digits(v) + ' s';
		}
		const size = Math.abs(v);
		if (size >= 1e6) return digits(v / 1e6) + 'M';
		if (size >= 1e4) return digits(v / 1e3) + 'k';
		return String(+v.toPrecision(4));
	}

	// marks draws a line at each moment at which something happened.
	function marks(chart) {
		return (u) => {
			for (const m of chart.marks || []) {
				const x = Math.round(u.valToPos(m.at, 'x', true));
				if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) continue;
				u.ctx.save();
				u.ctx.strokeStyle = colour(m.mood);
				u.ctx.lineWidth = 2 * devicePixelRatio;
				u.ctx.setLineDash([6, 4]);
				u.ctx.beginPath();
				u.ctx.moveTo(x, u.bbox.top);
				u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
				u.ctx.stroke();
				u.ctx.restore();
			}
		};
	}

	// xText formats a value of the x axis: a label, if the chart has labels.
	function xText(chart, v) {
		const labels = chart.labels || [];
		if (labels.length === 0) return number(v, chart.x.unit);
		return Number.isInteger(v) && labels[v] !== undefined ? labels[v] : '';
	}

	// wholeSteps are the distances between the ticks of an axis that has whole numbers only.
	const wholeSteps = Array.from({ length: 36 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3));

	function options(chart, width) {
		const axis = { stroke: colour('soft'), grid: { stroke: colour('line'), width: 1 }, ticks: { stroke: colour('line'), width: 1 } };
		const bars = chart.kind === 'bars';
		const whole = chart.x.unit === '' && chart.x.values.every(Number.isInteger);
		return {
			width, height: 260, hooks: { draw: [marks(chart)] }, cursor: { points: { size: 6 } },
			scales: {
				x: { time: false, distr: chart.x.log ? 3 : 1, range: bars ? (_, low, high) => [low - 0.6, high + 0.6] : undefined },
				y: { distr: chart.y.log ? 3 : 1, range: chart.y.log ? undefined : (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.08 : 1] },
			},
			axes: [
				{ ...axis, incrs: whole ? wholeSteps : undefined, values: (_, all) => all.map((v) => xText(chart, v)) },
				{ ...axis, size: 68, values: (_, all) => all.map((v) => (v == null ? '' : number(v, chart.y.unit))) },
			],
			series: [
				{ label: chart.x.name, value: (_, v) => (v == null ? '–' : xText(chart, v)) },
				...chart.lines.map((line, i) => ({
					label: line.name, stroke: colour('c' + (i % 8)), width: 2, value: (_, v) => number(v, chart.y.unit),
					fill: bars ? colour('c' + (i % 8)) + '66' : undefined,
					paths: bars ? uPlot.paths.bars({ size: [0.9, 60] }) : undefined,
					points: { show: chart.x.values.length < 40 && !bars },
				})),
			],
		};
	}

	let plots = [];
	function draw() {
		for (const p of plots) p.destroy();
		plots = [];
		for (const chart of charts) {
			const place = document.getElementById('chart-' + chart.id);
			const values = chart.lines.map((l) => l.values.map((v) => (chart.y.log && v <= 0 ? null : v)));
			plots.push(new uPlot(options(chart, place.clientWidth), [chart.x.values, ...values], place));
		}
		document.documentElement.dataset.drawn = String(plots.length);
	}
	draw();
	matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
	let width = innerWidth;
	addEventListener('resize', () => {
		if (innerWidth !== width) draw();
		width = innerWidth;
	});
})();
