// The whole configuration as one document: look at it, save it to a file, replace it.
import { api } from './api.js';
import { $, confirmDialog, copyButton, h, toast } from './dom.js';
import { t } from './i18n.js';
import { showKeys } from './secret.js';

const SECTIONS = ['mappings', 'keys', 'clients', 'users'];

export function openConfiguration(root) {
	let text;    // <textarea>
	let faults;
	let loaded = null; // the document as the gateway has it
	let edited = false;

	const pretty = (document) => JSON.stringify(document, null, 2);

	function showFaults(lines) {
		faults.hidden = !lines.length;
		faults.replaceChildren(...(lines.length ? [h('p', {}, t('config.faults', { n: lines.length })), h('ul', {}, lines.map((l) => h('li', {}, l)))] : []));
		if (lines.length) {
			text.setAttribute('aria-invalid', 'true');
			faults.focus();
		} else {
			text.removeAttribute('aria-invalid');
		}
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
		$('#replace', root).disabled = !edited;
		$('#revert', root).disabled = !edited;
	}

	// What there is to edit, save or go back to is known once it has come.
	function enable() {
		for (const id of ['#document', '#save-file', '#open-file']) $(id, root).disabled = !loaded;
	}

	function take(document) {
		loaded = document;
		enable();
		text.value = pretty(document);
		edit();
	}

	// From how many entries to how many: what a slip of the hand would delete is seen here.
	function counts(document) {
		const n = (from, section) => (Array.isArray(from[section]) ? from[section].length : 0);
		return SECTIONS.map((s) => `${t('section.' + s)}: ${n(loaded, s)} → ${n(document, s)}`).join(', ');
	}

	async function replace(document) {
		try {
			const answer = await api('PUT', '/api/config', document);
			const fresh = (answer.clients || []).filter((client) => client.key);
			take(await api('GET', '/api/config'));
			toast(t('config.replaced'));
			if (fresh.length) setTimeout(() => showKeys(fresh));
		} catch (error) {
			const lines = error.faults.map(({ place, message }) => (place ? `${place}: ${message}` : message));
			setTimeout(() => showFaults(lines.length ? lines : [error.message]));
		}
	}

	function ask() {
		const document = parse();
		if (!document) return;
		showFaults([]);
		confirmDialog({ title: t('config.ask'), text: t('config.ask.text', { counts: counts(document) }), action: t('config.replace'), perform: () => replace(document) });
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
		// Live until someone starts to edit.
		async refresh() {
			const document = await api('GET', '/api/config');
			if (!edited && root.contains(text) && pretty(document) !== text.value) take(document);
		},
		redraw() {
			build();
			if (loaded) edit();
		},
	};
}
