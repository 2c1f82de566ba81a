// Shows client keys, which the gateway says once and never again.
import { copyButton, h, openDialog } from './dom.js';
import { t } from './i18n.js';

function keyField({ id, key }, i) {
	const input = h('input', { id: 'new-key-' + i, readonly: true, class: 'mono', value: key, spellcheck: 'false' });
	input.addEventListener('focus', () => input.select());
	return h('div', { class: 'field wide' }, h('label', { for: input.id }, t('key.of', { id })),
		h('div', { class: 'bar tight' }, input, copyButton(() => key)));
}

export function showKeys(clients) {
	const done = h('button', { type: 'button', class: 'primary' }, t('key.stored'));
	const dialog = openDialog({
		title: t('key.new'), mustAnswer: true, isDirty: () => true, wide: true, foot: [done],
		body: [h('p', { class: 'alert warn' }, t('key.warning')), clients.map(keyField)],
	});
	done.addEventListener('click', () => dialog.close());
	dialog.querySelector('input').focus();
}

export const showKey = (client) => showKeys([client]);
