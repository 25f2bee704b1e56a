package browsertest

import (
	"context"
	"os"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Do does steps, and fails the test if one fails.
func Do(t testing.TB, tab context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(tab, steps...); err != nil {
		t.Fatal(err)
	}
}

// Evaluate returns the value of an expression of JavaScript, as a text.
func Evaluate(t testing.TB, tab context.Context, expression string) string {
	t.Helper()
	got, err := chromedp.Run(tab, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		t.Fatalf("%v: %s", err, expression)
	}
	return got
}

// Prefer makes pages think that their user likes "dark" or "light".
func Prefer(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

// Picture writes what the tab shows, as PNG.
func Picture(t testing.TB, tab context.Context, file string) {
	t.Helper()
	png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// findings are expressions of JavaScript that are empty for a good page.
var findings = map[string]string{
	"wider than the screen": `document.documentElement.scrollWidth > innerWidth ? String(document.documentElement.scrollWidth) : ""`,
	"blank charts": `[...document.querySelectorAll("canvas")].filter(c => {
		const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
		return !d.some(v => v !== 0);
	}).length || ""`,
	"charts without a name":   `[...document.querySelectorAll("[role=img]")].filter(c => !c.ariaLabel).length || ""`,
	"headings without a text": `[...document.querySelectorAll("h1, h2, caption, summary")].filter(h => !h.textContent.trim()).length || ""`,
	"fields without a label":  `[...document.querySelectorAll("input")].filter(i => i.labels.length === 0).map(i => i.id).join(" ")`,
	"text without contrast": `(() => {
		const light = colour => {
			const linear = colour.match(/[\d.]+/g).slice(0, 3).map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
			return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2] + .05;
		};
		const behind = e => {
			for (; e; e = e.parentElement) {
				const c = getComputedStyle(e).backgroundColor;
				if (c !== "rgba(0, 0, 0, 0)") return c;
			}
			return "rgb(255, 255, 255)";
		};
		const bad = new Set();
		for (const e of document.querySelectorAll("h1, h2, p, dt, dd, small, td, th, li, summary, caption, button, label, td span, h1 span, li span")) {
			const a = light(getComputedStyle(e).color), b = light(behind(e));
			const ratio = Math.max(a, b) / Math.min(a, b);
			if (ratio < 4.5) bad.add(e.tagName + "." + e.className + " " + ratio.toFixed(1));
		}
		return [...bad].join(", ");
	})()`,
}

// Check looks for what no page of ours may have: parts that do not fit the screen, empty charts,
// what a screen reader cannot name, and text that is hard to read.
func Check(t testing.TB, tab context.Context, name string) {
	t.Helper()
	for what, expression := range findings {
		if got := Evaluate(t, tab, expression); got != "" {
			t.Errorf("%s: %s: %s", name, what, got)
		}
	}
}
