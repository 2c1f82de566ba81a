// One kind of entries as a table: search, add, edit, switch on and off, delete. Rows are kept from
// one refresh to the next as long as their entry is the same, so that focus and selection stay.
import { api } from './api.js';
import { $, announce, confirmDialog, h, icon, setText, toast } from './dom.js';
import { KINDS, fieldsOf } from './fields.js';
import { openForm } from './form.js';
import * as format from './format.js';
import { t } from './i18n.js';
import { showKey } from './secret.js';
import { openUsage } from './usage.js';

export function openList(root, kind, refreshSoon) {
	const { id: idField, columns, path } = KINDS[kind];
	let entries = null;
	let search;
	let body;
	const rows = new Map(); // id -> {row, json}

	const idOf = (entry) => entry[idField];
	const changed = async (message) => {
		toast(message);
		await refreshSoon();
	};

	/* ---- actions ---- */

	// Asks for what a dialog needs, then opens it: one at a time, and none where the section was left meanwhile.
	let opening = false;
	async function openAfter(asked, open) {
		if (opening) return;
		opening = true;
		try {
			const answer = await asked();
			if (root.contains(body)) open(answer);
		} finally {
			opening = false;
		}
	}

	const edit = (entry) => openAfter(context, (around) => openForm(kind, entry, around, () => changed(t('saved', { id: idOf(entry) }))));

	const add = () => openAfter(context, (around) => openForm(kind, null, around, (answer) => {
		changed(t('created', { id: idOf(answer) }));
		if (kind === 'clients' && answer.key) showKey(answer);
	}));

	// Which mappings would be left without a key.
	async function bereft(key) {
		try {
			const [{ keys }, { mappings }] = await Promise.all([api('GET', '/api/keys'), api('GET', '/api/mappings')]);
			const keyed = poolsWithKey(keys.filter(({ id }) => id !== key.id));
			return mappings.filter(({ pool }) => pool === key.pool && !keyed.has(pool)).map(({ prefix }) => prefix);
		} catch (error) {
			return []; // the question is asked all the same
		}
	}

	async function warningBefore(entry) {
		const prefixes = kind === 'keys' ? await bereft(entry) : [];
		if (!prefixes.length) return null;
		return h('p', { class: 'alert warn' }, t('delete.keys.last', { pool: entry.pool, prefixes: format.names(prefixes) }));
	}

	const remove = (entry) => openAfter(() => warningBefore(entry), (warning) => confirmDialog({
		title: t(`delete.${kind}`, { id: idOf(entry) }), action: t('delete'),
		text: [warning, h('p', {}, t(`delete.${kind}.text`))],
		perform: async () => {
			await api('DELETE', path(idOf(entry)));
			changed(t('deleted', { id: idOf(entry) })).then(() => search.focus());
		},
	}));

	const rotate = (entry) => confirmDialog({
		title: t('rotate.title', { id: idOf(entry) }), text: t('rotate.text'), action: t('rotate'),
		perform: async () => {
			const answer = await api('POST', path(idOf(entry)) + '/rotate');
			setTimeout(() => showKey(answer)); // once this dialog is closed
			changed(t('rotated', { id: idOf(entry) }));
		},
	});

	async function perform(button, work, message) {
		button.disabled = true;
		try {
			await work();
			await changed(message);
		} catch (error) {
			toast(error.message);
			await refreshSoon();
		} finally {
			button.disabled = false;
		}
	}

	const reset = (entry, button) => perform(button, () => api('POST', path(idOf(entry)) + '/reset'), t('reset.done', { id: idOf(entry) }));

	// Where it was not saved, the switch goes back: the entry is as it was, and its row is not drawn again.
	const toggle = (entry, box) => perform(box, () => api('PUT', path(idOf(entry)), { enabled: box.checked }).catch((error) => {
		box.checked = entry.enabled !== false;
		throw error;
	}), t(box.checked ? 'enabled' : 'disabled', { id: idOf(entry) }));

	// [action, shown where, what it does]
	const ACTIONS = [
		['usage', () => kind === 'clients' || kind === 'users', (entry) => openUsage(path(idOf(entry)) + '/usage', idOf(entry))],
		['reset', (entry) => kind === 'keys' && entry.health && ['cooling', 'trial'].includes(entry.health.state), reset],
		['rotate', () => kind === 'clients', rotate],
		['edit', () => true, edit],
		['delete', () => true, remove],
	];

	const poolsWithKey = (keys) => new Set(keys.filter((key) => key.enabled !== false).map((key) => key.pool));

	// Where the keys cannot be read, nothing is said of them.
	async function markKeyless(mappings) {
		if (!mappings.some((mapping) => mapping.pool)) return mappings;
		const { keys } = await api('GET', '/api/keys').catch(() => ({ keys: null }));
		const keyed = keys && poolsWithKey(keys);
		return mappings.map((mapping) => (keyed && mapping.pool && !keyed.has(mapping.pool) ? { ...mapping, keyless: true } : mapping));
	}

	// What a form offers: prefixes to choose from, pools that there are.
	async function context() {
		const names = fieldsOf(kind).map((f) => f.name);
		const ask = (wanted, what) => (wanted ? api('GET', '/api/' + what).then((a) => a[what]).catch(() => []) : []);
		const [mappings, keys] = await Promise.all([
			ask(names.includes('mappings') || names.includes('pool'), 'mappings'), ask(names.includes('pool'), 'keys')]);
		return {
			prefixes: mappings.map((m) => m.prefix),
			pools: [...new Set([...mappings, ...keys].map((e) => e.pool).filter(Boolean))].sort(),
		};
	}

	/* ---- drawing ---- */

	function cell(name, content) {
		return h('td', { 'data-label': t('field.' + name) }, content);
	}

	function rowFor(entry) {
		const box = h('input', { type: 'checkbox', class: 'switch', role: 'switch', 'data-action': 'toggle', 'aria-label': t('toggle', { id: idOf(entry) }), checked: entry.enabled !== false });
		box.addEventListener('change', () => toggle(entry, box));
		const actions = ACTIONS.filter(([, when]) => when(entry)).map(([name, , act]) => {
			const button = h('button', { type: 'button', class: 'ghost' + (name === 'delete' ? ' danger-text' : ''), 'data-action': name, 'aria-label': `${t(name)}: ${idOf(entry)}` }, t(name));
			button.addEventListener('click', () => act(entry, button));
			return button;
		});
		const [[first, write], ...others] = columns;
		return h('tr', { 'data-id': idOf(entry), class: entry.enabled === false ? 'off' : '' },
			h('th', { scope: 'row', 'data-label': t('field.' + first) }, write(entry)),
			others.map(([name, content]) => cell(name, content(entry))),
			cell('enabled', box), h('td', { class: 'actions' }, actions));
	}

	function keepFocus(work) {
		const focused = document.activeElement;
		const row = focused && focused.closest && focused.closest('tr');
		const at = row && [...rows.entries()].find(([, r]) => r.row === row);
		work();
		if (!at || focused.isConnected) return;
		const again = rows.get(at[0]);
		const twin = again && again.row.querySelector(`[data-action="${focused.dataset.action}"]`);
		if (twin) twin.focus();
	}

	function updateRows() {
		const ids = new Set(entries.map(idOf));
		for (const [id, { row }] of rows) {
			if (ids.has(id)) continue;
			row.remove();
			rows.delete(id);
		}
		entries.forEach((entry, i) => {
			const json = JSON.stringify(entry);
			const old = rows.get(idOf(entry));
			if (!old || old.json !== json) {
				const row = rowFor(entry);
				if (old) old.row.replaceWith(row);
				rows.set(idOf(entry), { row, json });
			}
			const { row } = rows.get(idOf(entry));
			if (body.children[i] !== row) body.insertBefore(row, body.children[i] || null);
		});
	}

	function filter() {
		const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
		let shown = 0;
		for (const { row, json } of rows.values()) {
			row.hidden = !words.every((word) => json.toLowerCase().includes(word));
			if (!row.hidden) shown++;
		}
		setText($('#count', root), entries.length ? t('count', { shown, all: entries.length }) : '');
		$('#empty', root).hidden = shown > 0;
		setText($('#empty', root), t(entries.length ? 'search.none' : `empty.${kind}`));
		$('.list', root).hidden = !shown;
		return shown;
	}

	function build() {
		const words = search ? search.value : '';
		search = h('input', { type: 'search', id: 'search', autocomplete: 'off', placeholder: t('search'), 'aria-label': t('search') });
		search.value = words;
		search.addEventListener('input', () => entries && announce(t('found.n', { n: filter() })));
		body = h('tbody');
		rows.clear();
		const heads = [...columns.map(([name]) => name), 'enabled'].map((name) => h('th', { scope: 'col' }, t('field.' + name)));
		root.replaceChildren(
			h('div', { class: 'bar' },
				h('h1', { id: 'section-title', tabindex: '-1' }, t('section.' + kind)),
				h('span', { id: 'count', class: 'muted' }), h('span', { class: 'push' }), search,
				h('button', { type: 'button', class: 'primary', id: 'add', onclick: add }, icon('plus'), h('span', {}, t('add')))),
			h('p', { class: 'muted intro' }, t(`intro.${kind}`)),
			h('table', { class: 'list', hidden: true, 'aria-labelledby': 'section-title' },
				h('thead', {}, h('tr', {}, heads, h('th', { scope: 'col' }, h('span', { class: 'off-screen' }, t('actions'))))), body),
			h('p', { id: 'empty', class: 'empty' }, t('loading')));
	}

	function draw() {
		if (!entries) return;
		keepFocus(updateRows);
		filter();
	}

	build();
	return {
		async refresh() {
			const answer = await api('GET', '/api/' + kind);
			entries = kind === 'mappings' ? await markKeyless(answer[kind]) : answer[kind];
			if (root.contains(body)) draw(); // else another section was opened meanwhile
		},
		redraw() {
			build();
			draw();
		},
	};
}
