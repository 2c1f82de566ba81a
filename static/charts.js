// Chart.js (window.Chart, a plain script) in the page's colours. Colours come from CSS variables
// (#rrggbb), so that a change of theme is a redraw. No animation: figures that come every two
// seconds need none, and reduced motion is then kept by itself.
import { onTheme } from './page.js';

const TICK_STEPS_MS = [15000, 30000, 60000, 300000];
const charts = new Set();

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();

function faded(ink, share) {
	const [r, g, b] = [1, 3, 5].map((at) => parseInt(ink.slice(at, at + 2), 16));
	return `rgba(${r}, ${g}, ${b}, ${share})`;
}

function paint({ options: { scales, plugins }, data }) {
	for (const scale of Object.values(scales)) {
		scale.ticks.color = colour('muted');
		scale.grid.color = colour('line');
	}
	plugins.legend.labels.color = colour('text');
	for (const set of data.datasets) {
		const ink = colour(set.ink);
		set.borderColor = ink;
		set.backgroundColor = set.wash ? faded(ink, set.wash) : ink;
		set.pointBackgroundColor = ink;
	}
}

function options({ x, formatY, heading, stacked = false, floor }) {
	return {
		animation: false, responsive: true, maintainAspectRatio: false, normalized: true,
		interaction: { mode: 'index', intersect: false },
		scales: {
			x: { ...x, stacked, ticks: { ...x.ticks, maxRotation: 0, autoSkipPadding: 24 }, grid: { display: false } },
			y: { beginAtZero: true, stacked, suggestedMax: floor, ticks: { maxTicksLimit: 5, callback: formatY }, grid: { drawBorder: false } },
		},
		plugins: {
			legend: { position: 'bottom', align: 'start', labels: { boxWidth: 8, boxHeight: 8, usePointStyle: true, pointStyle: 'circle' } },
			tooltip: { callbacks: { title: (items) => (items.length ? heading(items[0]) : ''), label: (item) => `${item.dataset.label}: ${formatY(item.parsed.y)}` } },
		},
	};
}

function putTicksOnWholeTimes(axis) {
	const { min, max } = axis;
	const step = TICK_STEPS_MS.find((wide) => (max - min) / wide <= 6) || max - min;
	axis.ticks = [];
	for (let value = Math.ceil(min / step) * step; value <= max; value += step) axis.ticks.push({ value });
}

function show(canvas, config) {
	paint(config);
	const chart = new window.Chart(canvas, config);
	charts.add(chart);
	return chart;
}

// series: [{ink: a colour's variable, wash: how much of it fills the area}]. x is a time in ms.
export function lineChart(canvas, series, { formatX, formatY, floor = 1 }) {
	const chart = show(canvas, {
		type: 'line',
		data: {
			datasets: series.map(({ ink, wash }) => ({
				ink, wash, fill: Boolean(wash), data: [], parsing: false, label: '',
				borderWidth: 2, pointRadius: 0, pointHoverRadius: 3, tension: 0.2, spanGaps: false,
			})),
		},
		options: options({
			x: { type: 'linear', ticks: { callback: (value) => formatX(value) }, afterBuildTicks: putTicksOnWholeTimes },
			formatY: (value) => formatY(value), floor, heading: (item) => formatX(item.parsed.x),
		}),
	});
	return {
		// points: one array of {x, y} for each series; a y of NaN leaves a gap.
		update({ labels, points, from, to, summary }) {
			points.forEach((data, i) => Object.assign(chart.config.data.datasets[i], { data, label: labels[i] }));
			Object.assign(chart.config.options.scales.x, { min: from, max: to });
			canvas.setAttribute('aria-label', summary);
			chart.update('none');
		},
	};
}

// Stacked bars, one a day. series: [{label, ink, data}].
export function dayChart(canvas, { days, series, formatY, summary }) {
	const chart = show(canvas, {
		type: 'bar',
		data: { labels: days, datasets: series.map((set) => ({ ...set, wash: 0.9, borderWidth: 0, borderRadius: 2 })) },
		options: options({ x: { ticks: {} }, formatY: (value) => formatY(value), stacked: true, floor: 4, heading: (item) => item.label }),
	});
	canvas.setAttribute('aria-label', summary);
	return {
		destroy() {
			charts.delete(chart);
			chart.destroy();
		},
	};
}

onTheme(() => charts.forEach((chart) => {
	paint(chart.config);
	chart.update();
}));
