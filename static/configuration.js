// The whole configuration as one document: look at it, save it to a file, replace it. Where it is
// replaced, the keys that were made are shown first: they are said once.
import { api } from './api.js';
import { $, confirmDialog, copyButton, h, toast } from './dom.js';
import { KINDS } from './fields.js';
import * as format from './format.js';
import { t } from './i18n.js';
import { showKeys } from './secret.js';

const SECTIONS = ['mappings', 'keys', 'clients', 'users'];

export function openConfiguration(root) {
	let text;    // <textarea>
	let faults;
	let loaded = null; // the document as the gateway had it when someone began to edit; null: to be read
	let edited = false;
	let asking = false;

	const pretty = (document) => JSON.stringify(document, null, 2);

	function showFaults(lines, head = t('config.faults', { n: lines.length })) {
		faults.hidden = !lines.length;
		faults.replaceChildren(...(lines.length ? [h('p', {}, head), h('ul', {}, lines.map((l) => h('li', {}, l)))] : []));
		if (lines.length && loaded) text.setAttribute('aria-invalid', 'true');
		else text.removeAttribute('aria-invalid');
		if (lines.length) faults.focus();
	}

	function parse() {
		try {
			const document = JSON.parse(text.value);
			if (document && typeof document === 'object' && !Array.isArray(document)) return document;
			showFaults([t('config.object')]);
		} catch (error) {
			showFaults([t('config.json', { message: error.message })]);
		}
		return null;
	}

	function saveFile() {
		const url = URL.createObjectURL(new Blob([pretty(loaded) + '\n'], { type: 'application/json' }));
		const link = h('a', { href: url, download: `apiproxy-${new Date().toISOString().slice(0, 10)}.json` });
		root.append(link);
		link.click();
		link.remove();
		setTimeout(() => URL.revokeObjectURL(url), 1000);
	}

	async function openFile(event) {
		const [file] = event.target.files;
		if (!file) return;
		text.value = await file.text();
		event.target.value = '';
		edit();
		text.focus();
	}

	function edit() {
		edited = text.value !== pretty(loaded);
		showFaults([]);
		enable();
	}

	// What there is to edit, save or go back to is known once it has come.
	function enable() {
		for (const id of ['#document', '#save-file', '#open-file']) $(id, root).disabled = !loaded;
		for (const id of ['#revert', '#replace']) $(id, root).disabled = !edited;
	}

	function take(document) {
		loaded = document;
		text.value = pretty(document);
		edit();
	}

	const namesIn = (document, section) => (Array.isArray(document[section]) ? document[section] : []).map((entry) => entry && entry[KINDS[section].id]);

	// From how many entries to how many, and which go: what a slip of the hand would delete is seen here.
	function question(now, document) {
		const counts = SECTIONS.map((s) => `${t('section.' + s)}: ${namesIn(now, s).length} → ${namesIn(document, s).length}`).join(', ');
		const gone = SECTIONS.map((section) => {
			const kept = new Set(namesIn(document, section));
			return { section, names: namesIn(now, section).filter((name) => !kept.has(name)) };
		}).filter(({ names }) => names.length);
		const lines = gone.map(({ section, names }) => t('config.gone', {
			section: t('section.' + section), n: names.length, names: format.names(names),
		}));
		return [
			pretty(now) === pretty(loaded) ? null : h('p', { class: 'alert warn' }, t('config.ask.changed')),
			h('p', {}, t('config.ask.text', { counts })),
			lines.length ? h('p', {}, t('config.ask.gone')) : null,
			lines.length ? h('ul', { class: 'names' }, lines.map((line) => h('li', {}, line))) : null,
		];
	}

	async function readAgain() {
		edited = false;
		loaded = null;
		enable();
		try {
			take(await api('GET', '/api/config'));
		} catch (error) {
			if (root.contains(text)) showFaults([error.message], t('config.unread')); // refresh() goes on trying
		}
	}

	async function replace(document) {
		try {
			const answer = await api('PUT', '/api/config', document);
			const fresh = (answer.clients || []).filter((client) => client.key);
			if (fresh.length) setTimeout(() => showKeys(fresh)); // once the question is closed
			toast(t('config.replaced'));
			readAgain();
		} catch (error) {
			const lines = error.faults.map(({ place, message }) => (place ? `${place}: ${message}` : message));
			const unknown = error.status < 300 ? t('config.unknown') : undefined; // also an answer cut short
			setTimeout(() => showFaults(lines.length ? lines : [error.message], unknown));
		}
	}

	// Asks about the configuration as it is by now: it may have changed since someone began to edit.
	async function ask() {
		const document = asking ? null : parse();
		if (!document) return;
		showFaults([]);
		asking = true;
		try {
			const now = await api('GET', '/api/config');
			if (root.contains(text)) confirmDialog({ title: t('config.ask'), text: question(now, document), action: t('config.replace'), perform: () => replace(document) });
		} catch (error) {
			if (root.contains(text) && error.status !== 401) showFaults([error.message]);
		} finally {
			asking = false;
		}
	}

	function build() {
		const words = text ? text.value : '';
		text = h('textarea', { id: 'document', class: 'mono', rows: '22', spellcheck: 'false', autocomplete: 'off', autocapitalize: 'off', 'aria-describedby': 'document-hint' });
		text.value = words;
		text.addEventListener('input', edit);
		faults = h('div', { class: 'alert bad', role: 'alert', tabindex: '-1', hidden: true });
		const file = h('input', { type: 'file', id: 'file', class: 'off-screen', accept: '.json,application/json', tabindex: '-1', 'aria-label': t('config.open'), onchange: openFile });
		root.replaceChildren(
			h('div', { class: 'bar' },
				h('h1', { id: 'section-title', tabindex: '-1' }, t('section.configuration')), h('span', { class: 'push' }),
				copyButton(() => text.value), h('button', { type: 'button', id: 'save-file', onclick: saveFile }, t('config.save')),
				h('button', { type: 'button', id: 'open-file', onclick: () => file.click() }, t('config.open')), file),
			h('p', { class: 'muted intro', id: 'document-hint' }, t('intro.configuration')), faults,
			h('label', { for: 'document', class: 'off-screen' }, t('section.configuration')), text,
			h('div', { class: 'bar foot' }, h('span', { class: 'push' }),
				h('button', { type: 'button', id: 'revert', disabled: true, onclick: () => take(loaded) }, t('config.revert')),
				h('button', { type: 'button', id: 'replace', class: 'danger', disabled: true, onclick: ask }, t('config.replace'))));
		enable();
	}

	build();
	return {
		isDirty: () => edited,
		// Live until someone starts to edit.
		async refresh() {
			const document = await api('GET', '/api/config');
			if (!edited && root.contains(text) && (!loaded || pretty(document) !== text.value)) take(document);
		},
		redraw() {
			build();
			if (loaded) edit();
		},
	};
}
