// What a client or user has used: the current windows against their limits, and 30 days by day.
//   {"current":{"requests","input_tokens","output_tokens"},"limits":{the same; 0: none},
//    "days":[{"date", and the same three}]}
import { api } from './api.js';
import { dayChart } from './charts.js';
import { h, openDialog } from './dom.js';
import * as format from './format.js';
import { t } from './i18n.js';

const POLL_MS = 2000;

const FIGURES = ['requests', 'input_tokens', 'output_tokens'];

function windowOf(name, used = 0, limit = 0) {
	const text = limit ? t('usage.of', { used: format.count(used), limit: format.count(limit) }) : t('usage.free', { used: format.count(used) });
	return h('div', { class: 'tile' },
		h('h3', {}, t('usage.' + name)), h('p', { class: 'value small' }, text),
		limit ? h('meter', { min: 0, max: limit, high: limit * 0.9, optimum: 0, value: Math.min(used, limit), 'aria-label': t('usage.' + name) }, format.percent(used / limit * 100)) : null);
}

function table(days) {
	return h('details', {}, h('summary', {}, t('usage.table')),
		h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': t('usage.table') },
			h('table', { class: 'figures' },
				h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, t('usage.date')), FIGURES.map((f) => h('th', { scope: 'col' }, t('usage.' + f))))),
				h('tbody', {}, [...days].reverse().map((d) => h('tr', {}, h('th', { scope: 'row' }, d.date), FIGURES.map((f) => h('td', {}, format.count(d[f])))))))));
}

function plot(title, days, names, inks) {
	const canvas = h('canvas', { role: 'img' });
	const total = (name) => days.reduce((sum, d) => sum + (d[name] || 0), 0);
	const summary = t('chart.summary', { title, now: names.map((n) => `${t('usage.' + n)} ${format.count(total(n))}`).join(', ') });
	return {
		element: h('section', {}, h('h3', {}, title), h('div', { class: 'plot low' }, canvas)),
		draw: () => dayChart(canvas, {
			days: days.map((d) => format.day(d.date)), formatY: format.short, summary,
			series: names.map((name, i) => ({ label: t('usage.' + name), ink: inks[i], data: days.map((d) => d[name] || 0) })),
		}),
	};
}

// path: /api/clients/ID/usage or /api/users/NAME/usage. The window is live as long as the
// dialog is open.
export function openUsage(path, id) {
	const tiles = h('div', { class: 'tiles' });
	const body = h('div', {}, h('p', { class: 'empty' }, t('loading')));
	let charts = [];
	let timer = 0;
	const dialog = openDialog({
		title: t('usage.title', { id }), body, wide: true,
		onclose: () => {
			clearTimeout(timer);
			charts.forEach((chart) => chart.destroy());
		},
	});

	function draw(days) {
		const plots = [plot(t('usage.requests.days'), days, ['requests'], ['accent']),
			plot(t('usage.tokens.days'), days, ['input_tokens', 'output_tokens'], ['ink-1', 'ink-2'])];
		body.replaceChildren(h('h3', {}, t('usage.window')), tiles, ...plots.map((p) => p.element), table(days));
		charts = plots.map((p) => p.draw());
	}

	async function ask() {
		try {
			const { current, limits, days } = await api('GET', path);
			if (!dialog.isConnected) return;
			tiles.replaceChildren(...FIGURES.map((name) => windowOf(name, current[name], limits[name])));
			if (!charts.length) draw([...days].sort((a, b) => a.date.localeCompare(b.date)));
		} catch (error) {
			if (!charts.length) body.replaceChildren(h('p', { class: 'alert bad', role: 'alert' }, error.message));
		}
		if (dialog.isConnected) timer = setTimeout(ask, POLL_MS);
	}
	ask();
}
