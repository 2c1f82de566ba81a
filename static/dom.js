// Building blocks: elements, dialogs, copying, announcements. Data reaches the page as text only:
// nothing here or elsewhere parses a string as HTML.
import { t } from './i18n.js';
import { hold } from './unsaved.js';

export const $ = (selector, root = document) => root.querySelector(selector);

// h('button', {class: 'ghost', onclick: f, 'aria-label': 'x'}, 'text', child…). false, null and undefined are left out.
export function h(tag, attributes = {}, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (value === null || value === undefined || value === false) continue;
		if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
		else element.setAttribute(name, value === true ? '' : value);
	}
	element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
	return element;
}

const SVG = 'http://www.w3.org/2000/svg';
const ICONS = {
	auto: 'M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18',
	light: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2',
	dark: 'M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z',
	copy: 'M9 9h11v11H9zM5 15H4V4h11v1',
	done: 'M5 13l4 4 10-11',
	close: 'M6 6l12 12M18 6L6 18',
	plus: 'M12 5v14M5 12h14',
	pause: 'M9 6v12M15 6v12',
	play: 'M8 5l11 7-11 7z',
};

export function icon(name) {
	const svg = document.createElementNS(SVG, 'svg');
	svg.setAttribute('viewBox', '0 0 24 24');
	svg.setAttribute('class', 'icon');
	svg.setAttribute('aria-hidden', 'true');
	const path = document.createElementNS(SVG, 'path');
	path.setAttribute('d', ICONS[name]);
	svg.append(path);
	return svg;
}

export function setText(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

// Says it to a screen reader, shows nothing.
export function announce(text) {
	const region = $('#announcer');
	region.textContent = '';
	requestAnimationFrame(() => { region.textContent = text; });
}

// A short message at the foot of the page that goes by itself; announced too.
export function toast(text) {
	const note = h('p', { class: 'toast' }, text);
	$('#toasts').append(note);
	setTimeout(() => note.remove(), 5000);
}

async function copyText(text, near) {
	if (navigator.clipboard && window.isSecureContext) {
		try {
			await navigator.clipboard.writeText(text);
			return true;
		} catch (e) {
			// refused: the older way may still work
		}
	}
	// On plain http away from localhost there is no clipboard API. The field stands beside the button,
	// since what lies outside an open dialog cannot be focused.
	const field = h('textarea', { class: 'off-screen', 'aria-hidden': 'true', tabindex: '-1' });
	field.value = text;
	near.after(field);
	field.select();
	const copied = document.execCommand('copy');
	field.remove();
	near.focus();
	return copied;
}

// getText is asked when the button is pressed.
export function copyButton(getText, label = 'copy') {
	const text = h('span', {}, t(label));
	const button = h('button', { type: 'button', class: 'ghost copy' }, icon('copy'), text);
	let back;
	button.addEventListener('click', async () => {
		const copied = await copyText(getText(), button);
		text.textContent = t(copied ? 'copied' : 'copy.failed');
		button.firstChild.replaceWith(icon(copied ? 'done' : 'close'));
		announce(text.textContent);
		clearTimeout(back);
		back = setTimeout(() => {
			text.textContent = t(label);
			button.firstChild.replaceWith(icon('copy'));
		}, 2000);
	});
	return button;
}

let dialogs = 0;

// Whatever closes the dialog but its close() (Escape, a phone's "back") is asked about by leave(). Of
// other ways than the key a browser lets only the first be prevented, and may close several dialogs by
// one: after that the dialog is opened again.
function guard(dialog, leave, isHeld, onclose) {
	const close = dialog.close.bind(dialog);
	let meant = false;
	let focused = null;
	dialog.close = () => {
		meant = true;
		close();
	};
	dialog.addEventListener('focusin', (event) => { focused = event.target; });
	dialog.addEventListener('keydown', (event) => {
		if (event.key !== 'Escape' || event.isComposing) return;
		event.preventDefault();
		leave();
	});
	dialog.addEventListener('cancel', (event) => {
		if (event.target !== dialog || !event.cancelable || !isHeld()) return;
		event.preventDefault();
		leave();
	});
	dialog.addEventListener('close', () => {
		if (meant || !isHeld()) return onclose();
		dialog.showModal();
		if (focused) focused.focus();
		leave();
	});
}

// A modal <dialog>: the browser traps and returns the focus. Removed from the page once closed. Its
// close() closes it, its leave() asks first where isDirty() says that something would be lost.
// mustAnswer: Escape does not close it.
export function openDialog({ title, body, foot = [], wide = false, mustAnswer = false, isDirty = () => false, onclose = null }) {
	const id = 'dialog-title-' + ++dialogs;
	const heading = h('h2', { id }, title);
	const close = h('button', { type: 'button', class: 'icon-only', 'aria-label': t('close') }, icon('close'));
	const dialog = h('dialog', { class: wide ? 'wide' : '', 'aria-labelledby': id },
		h('div', { class: 'dialog-head' }, heading, mustAnswer ? null : close),
		h('div', { class: 'dialog-body' }, body),
		foot.length ? h('div', { class: 'dialog-foot' }, foot) : null);
	const opener = document.activeElement;
	const letGo = hold(isDirty);
	dialog.leave = () => {
		if (mustAnswer) return;
		if (isDirty()) askToDiscard(() => dialog.close());
		else dialog.close();
	};
	close.addEventListener('click', dialog.leave);
	guard(dialog, dialog.leave, () => mustAnswer || isDirty(), () => {
		letGo();
		dialog.remove();
		if (opener && opener.isConnected) opener.focus();
		if (onclose) onclose();
	});
	document.body.append(dialog);
	dialog.showModal();
	return dialog;
}

// Asks before something that cannot be undone. text: one paragraph, or a list of elements. perform()
// does it; what it throws is shown in the dialog.
export function confirmDialog({ title, text, action, perform }) {
	const fault = h('p', { class: 'alert bad', role: 'alert', hidden: true });
	const cancel = h('button', { type: 'button', autofocus: true }, t('cancel'));
	const go = h('button', { type: 'button', class: 'danger' }, action);
	const dialog = openDialog({ title, body: [typeof text === 'string' ? h('p', {}, text) : text, fault], foot: [cancel, go] });
	cancel.addEventListener('click', () => dialog.close());
	go.addEventListener('click', async () => {
		go.disabled = true;
		try {
			await perform();
			dialog.close();
		} catch (error) {
			fault.textContent = error.message;
			fault.hidden = false;
			go.disabled = false;
		}
	});
	return dialog;
}

// Before what was typed is given up. discard() is called once the question is closed.
export function askToDiscard(discard) {
	return confirmDialog({ title: t('unsaved'), text: t('unsaved.text'), action: t('unsaved.discard'), perform: () => { setTimeout(discard); } });
}
