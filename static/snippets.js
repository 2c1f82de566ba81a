// How to use the proxy: snippets for curl and the vendors' SDKs, with this page's origin and the
// prefixes that are mapped. Where an SDK wants more than the origin (/v1), the vendor's host decides,
// or, as long as the target is not known, the prefix of the built-in list.
import { $, copyButton, h } from './dom.js';
import { t } from './i18n.js';

// By the target's host and by the usual prefix: the dialect, what follows the prefix in an OpenAI
// base URL, and a model that is there.
const VENDORS = [
	['openai', 'api.openai.com', 'openai', '/v1', 'gpt-4o-mini'],
	['claude', 'api.anthropic.com', 'anthropic', '', 'claude-sonnet-4-5'],
	['anthropic', 'api.anthropic.com', 'anthropic', '', 'claude-sonnet-4-5'],
	['gemini', 'generativelanguage.googleapis.com', 'gemini', '', 'gemini-2.5-flash'],
	['xai', 'api.x.ai', 'openai', '/v1', 'grok-4'],
	['groq', 'api.groq.com', 'openai', '/openai/v1', 'llama-3.3-70b-versatile'],
	['deepseek', 'api.deepseek.com', 'openai', '/v1', 'deepseek-chat'],
	['mistral', 'api.mistral.ai', 'openai', '/v1', 'mistral-small-latest'],
	['cohere', 'api.cohere.com', 'openai', '/compatibility/v1', 'command-a-03-2025'],
	['openrouter', 'openrouter.ai', 'openai', '/api/v1', 'openai/gpt-4o-mini'],
	['together', 'api.together.xyz', 'openai', '/v1', 'MODEL'],
	['fireworks', 'api.fireworks.ai', 'openai', '/inference/v1', 'MODEL'],
	['moonshot', 'api.moonshot.cn', 'openai', '/v1', 'MODEL'],
	['zhipu', 'open.bigmodel.cn', 'openai', '/api/paas/v4', 'MODEL'],
	['qwen', 'dashscope.aliyuncs.com', 'openai', '/compatible-mode/v1', 'qwen-plus'],
	['huggingface', 'router.huggingface.co', 'openai', '/v1', 'MODEL'],
	['perplexity', 'api.perplexity.ai', 'openai', '', 'sonar'],
	['siliconflow', 'api.siliconflow.cn', 'openai', '/v1', 'MODEL'],
	['cerebras', 'api.cerebras.ai', 'openai', '/v1', 'MODEL'],
].map(([name, host, dialect, base, model]) => ({ name, host, dialect, base, model }));

const UNKNOWN = { dialect: 'openai', base: '/v1', model: 'MODEL' };

// {prefix, target?, dialect?} -> what a snippet needs to know.
function describe({ prefix, target, dialect }) {
	let url = null;
	try {
		url = target ? new URL(target) : null;
	} catch (e) {
		// shown as if the target were not known
	}
	const last = prefix.split('/').pop();
	const vendor = VENDORS.find((v) => (url ? v.host === url.hostname : v.name === last)) || UNKNOWN;
	const versioned = url ? url.pathname.length > 1 : /^v\d+\w*$/.test(last);
	return { prefix, dialect: dialect || vendor.dialect, base: versioned ? '' : vendor.base, model: vendor.model };
}

const messages = '[{"role": "user", "content": "Hello"}]';

function curl(at, m) {
	const body = {
		openai: [`${m.base}/chat/completions`, 'Authorization: Bearer $API_KEY', `{"model": "${m.model}", "stream": true,\n       "messages": ${messages}}`],
		anthropic: ['/v1/messages', 'x-api-key: $API_KEY', `{"model": "${m.model}", "max_tokens": 1024, "stream": true,\n       "messages": ${messages}}`],
		gemini: [`/v1beta/models/${m.model}:streamGenerateContent?alt=sse`, 'x-goog-api-key: $API_KEY', '{"contents": [{"parts": [{"text": "Hello"}]}]}'],
	}[m.dialect];
	const version = m.dialect === 'anthropic' ? '\n  -H "anthropic-version: 2023-06-01" \\' : '';
	return `curl -N "${at}${body[0]}" \\\n  -H "${body[1]}" \\${version}\n  -H "Content-Type: application/json" \\\n  -d '${body[2]}'`;
}

const openai = (at, m) => `from openai import OpenAI

client = OpenAI(
    base_url="${at}${m.base}",
    api_key="YOUR_KEY",
)
stream = client.chat.completions.create(
    model="${m.model}",
    messages=${messages},
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)`;

const anthropic = (at, m) => `from anthropic import Anthropic

client = Anthropic(
    base_url="${at}",
    api_key="YOUR_KEY",
)
with client.messages.stream(
    model="${m.model}",
    max_tokens=1024,
    messages=${messages},
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)`;

const gemini = (at, m) => `from google import genai
from google.genai import types

client = genai.Client(
    api_key="YOUR_KEY",
    http_options=types.HttpOptions(base_url="${at}"),
)
for chunk in client.models.generate_content_stream(
    model="${m.model}",
    contents="Hello",
):
    print(chunk.text or "", end="", flush=True)`;

const ENVIRONMENT = {
	openai: (at, m) => `export OPENAI_BASE_URL="${at}${m.base}"\nexport OPENAI_API_KEY="YOUR_KEY"`,
	anthropic: (at) => `# also for Claude Code\nexport ANTHROPIC_BASE_URL="${at}"\nexport ANTHROPIC_API_KEY="YOUR_KEY"`,
	gemini: (at) => `export GOOGLE_GEMINI_BASE_URL="${at}"\nexport GEMINI_API_KEY="YOUR_KEY"`,
};

// Names of programs are not translated. dialect: which mappings fit; none: all of them.
const TABS = [
	{ id: 'curl', label: 'curl', make: curl },
	{ id: 'openai', label: 'OpenAI', dialect: 'openai', make: openai },
	{ id: 'anthropic', label: 'Anthropic', dialect: 'anthropic', make: anthropic },
	{ id: 'gemini', label: 'Google Gen AI', dialect: 'gemini', make: gemini },
	{ id: 'environment', labelKey: 'use.environment', make: (at, m) => ENVIRONMENT[m.dialect](at, m) },
];

const EXAMPLES = { openai: '/openai', anthropic: '/claude', gemini: '/gemini' };

let mappings = [];
let shownFor = '';
let selected = 'curl';
const chosen = {}; // tab -> prefix

function fitting(tab) {
	return mappings.filter((m) => !tab.dialect || m.dialect === tab.dialect);
}

function panel(tab) {
	const fit = fitting(tab);
	const none = !fit.length;
	if (none) fit.push(describe({ prefix: EXAMPLES[tab.dialect || 'openai'] }));
	const select = h('select', { id: 'prefix-' + tab.id }, fit.map((m) => h('option', { value: m.prefix }, m.prefix)));
	const usual = fit.find((m) => m.prefix === EXAMPLES[tab.dialect || 'openai']) || fit[0];
	select.value = fit.some((m) => m.prefix === chosen[tab.id]) ? chosen[tab.id] : usual.prefix;
	const code = h('code', {});
	const fill = () => {
		const mapping = fit.find((m) => m.prefix === select.value);
		code.textContent = tab.make(location.origin + mapping.prefix, mapping);
	};
	select.addEventListener('change', () => {
		chosen[tab.id] = select.value;
		fill();
	});
	fill();
	return h('div', { role: 'tabpanel', id: 'panel-' + tab.id, 'aria-labelledby': 'tab-' + tab.id, hidden: tab.id !== selected },
		h('div', { class: 'bar' },
			h('label', { for: select.id }, t('use.mapping')), select,
			h('span', { class: 'push' }), copyButton(() => code.textContent)),
		none ? h('p', { class: 'muted' }, t('use.example')) : null,
		h('pre', { tabindex: '0', role: 'region', 'aria-label': tab.label || t(tab.labelKey) }, code));
}

function select(id, focus) {
	selected = id;
	for (const tab of TABS) {
		const button = $('#tab-' + tab.id);
		const on = tab.id === id;
		button.setAttribute('aria-selected', String(on));
		button.tabIndex = on ? 0 : -1;
		$('#panel-' + tab.id).hidden = !on;
		if (on && focus) button.focus();
	}
}

function onTabKey(event) {
	const at = TABS.findIndex((tab) => tab.id === selected);
	const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: TABS.length - 1 }[event.key];
	if (to === undefined) return;
	event.preventDefault();
	select(TABS[(to + TABS.length) % TABS.length].id, true);
}

function render() {
	const list = h('div', { class: 'tabs', role: 'tablist', 'aria-labelledby': 'use-title', onkeydown: onTabKey },
		TABS.map((tab) => h('button', {
			type: 'button', role: 'tab', id: 'tab-' + tab.id, 'aria-controls': 'panel-' + tab.id,
			onclick: () => select(tab.id),
		}, tab.label || t(tab.labelKey))));
	$('#snippets').replaceChildren(list, ...TABS.map(panel), h('p', { class: 'muted' }, t('use.key')));
	select(selected);
}

// list: [{prefix, target?, dialect?, enabled?}]. Drawn again only if something in it changed.
export function showSnippets(list) {
	const wanted = JSON.stringify(list.map((m) => [m.prefix, m.target, m.dialect, m.enabled]));
	if (wanted === shownFor) return;
	shownFor = wanted;
	mappings = list.filter((m) => m.enabled !== false).map(describe);
	redrawSnippets();
}

export function redrawSnippets() {
	const focused = document.activeElement && document.activeElement.id;
	render();
	if (focused && $('#snippets').querySelector('#' + CSS.escape(focused))) $('#' + CSS.escape(focused)).focus();
}
