// What went wrong lately: GET /errors, newest first.
import { api } from './api.js';
import { $, h } from './dom.js';
import * as format from './format.js';
import { t } from './i18n.js';

export function openErrors(root) {
	let errors = null;
	let shown = '';

	function row({ at, source, message, count }) {
		return h('tr', {},
			h('td', { 'data-label': t('errors.at'), class: 'nowrap' }, h('time', { datetime: at }, format.moment(at))),
			h('td', { 'data-label': t('errors.source') }, h('span', { class: 'badge' }, String(source))),
			h('td', { 'data-label': t('errors.message'), class: 'message' }, String(message)),
			h('td', { 'data-label': t('errors.count') }, count > 1 ? '× ' + format.count(count) : ''));
	}

	function build() {
		root.replaceChildren(
			h('div', { class: 'bar' }, h('h1', { id: 'section-title', tabindex: '-1' }, t('section.errors'))),
			h('p', { class: 'muted intro' }, t('intro.errors')),
			h('table', { class: 'list', hidden: true, 'aria-labelledby': 'section-title' },
				h('thead', {}, h('tr', {}, ['at', 'source', 'message', 'count'].map((c) => h('th', { scope: 'col' }, t('errors.' + c))))),
				h('tbody')),
			h('p', { id: 'empty', class: 'empty' }, t('loading')));
	}

	function draw() {
		if (!errors || !root.contains($('#empty', root))) return;
		$('tbody', root).replaceChildren(...errors.map(row));
		$('.list', root).hidden = !errors.length;
		$('#empty', root).hidden = errors.length > 0;
		$('#empty', root).textContent = t('empty.errors');
	}

	build();
	return {
		async refresh() {
			const body = await api('GET', '/errors');
			const json = JSON.stringify(body.errors);
			errors = body.errors;
			if (json !== shown && root.isConnected) draw();
			shown = json;
		},
		redraw() {
			build();
			draw();
		},
	};
}
