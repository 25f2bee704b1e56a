package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"distmsg/internal/browsertest"
)

// screenshot is given as: go test ./examples/gateway -run TestPage/screenshot -screenshot
// screenshot.png
var screenshot = flag.String("screenshot", "", "`file` to write the picture to, from examples/gateway")

// tab is a page of a gateway.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// openTab opens the page at url in a tab of its own.
func openTab(t *testing.T, browser context.Context, url string, first ...chromedp.Action[chromedp.Void]) *tab {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	p := &tab{t, ctx}
	if err := chromedp.Do(ctx); err != nil { // opens it, for as long as ctx lives
		t.Fatal(err)
	}
	p.do(append(first, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("#login")))...)
	return p
}

// do acts as a user does, and fails if that takes a minute.
func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// waitFor waits until a JavaScript expression is true.
func (p *tab) waitFor(expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(20*time.Millisecond))); err != nil {
		text, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		p.t.Fatalf("waited for %s: %v; the page says:\n%s", expression, err, text)
	}
}

// waitText waits until the first element, or one that is not the first, has the text in it.
func (p *tab) waitText(selector, text string) {
	p.t.Helper()
	p.waitFor(fmt.Sprintf(`[...document.querySelectorAll(%s)].some(e => e.checkVisibility() && e.innerText.includes(%s))`, quote(selector), quote(text)))
}

// quote makes a JavaScript string.
func quote(s string) string {
	q, _ := json.Marshal(s)
	return string(q)
}

// enter puts a value into a field and presses a key there.
func (p *tab) enter(selector, value, key string) {
	p.t.Helper()
	set := fmt.Sprintf(`document.querySelector(%s).value = %s`, quote(selector), quote(value))
	if _, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](set)); err != nil {
		p.t.Fatal(err)
	}
	p.do(chromedp.SendKeys(chromedp.CSS(selector), key))
}

// url is where the page came from.
func (p *tab) url() string {
	p.t.Helper()
	url, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`location.href`))
	if err != nil {
		p.t.Fatal(err)
	}
	return url
}

func (p *tab) login(id string) {
	p.t.Helper()
	p.enter("#id", id, "\r")
	p.do(chromedp.WaitVisible(chromedp.CSS("#chat")))
	p.waitText("#state", "connected")
}

func (p *tab) send(to, text string) {
	p.t.Helper()
	p.enter("#to", to, "\t")
	p.enter("#text", text, "\r")
}

// The tests of the page share a browser, which takes long to start.
func TestPage(t *testing.T) {
	t.Parallel()
	chromium := browsertest.Open(t)
	for name, test := range map[string]func(*testing.T, context.Context){
		"two pages talk":    testTwoPagesTalk,
		"several receivers": testSeveralReceivers,
		"kicked":            testKicked,
		"relay restarts":    testRelayRestarts,
		"reload":            testReload,
		"newest in view":    testNewestInView,
		"phone":             testPhone,
		"contrast":          testContrast,
		"screenshot":        testScreenshot,
	} {
		t.Run(name, func(t *testing.T) {
			// a gateway takes up to 5 s to end, for connections that Chromium opened and did not
			// use
			t.Parallel()
			test(t, chromium)
		})
	}
}

// openPair opens two pages on two gateways, where 1001 and 1002 are logged in.
func openPair(t *testing.T, chromium context.Context) (here, there *tab) {
	relay := startRelay(t)
	here, there = openTab(t, chromium, startGateway(t, relay)), openTab(t, chromium, startGateway(t, relay))
	here.login("1001")
	there.login("1002")
	return here, there
}

func testTwoPagesTalk(t *testing.T, chromium context.Context) {
	here, there := openPair(t, chromium)
	here.send("1002", "good morning")
	there.waitText(".received", "1001\ngood morning")
	here.waitFor(`/^acked · delivered · [\d.]+ ms$/.test(document.querySelector(".sent .outcome")?.innerText)`)
	there.send("1001", "<b>ciao</b> 👩🏽‍🚀 שלום")
	here.waitText(".received", "1002\n<b>ciao</b> 👩🏽‍🚀 שלום")

	here.send("nobody", "is there anybody?")
	here.waitFor(`/^no_route · not delivered: nobody is logged in with this ID · [\d.]+ ms$/.test([...document.querySelectorAll(".sent .outcome")].at(-1).innerText)`)
}

// A message to several IDs shows what became of each copy.
func testSeveralReceivers(t *testing.T, chromium context.Context) {
	here, there := openPair(t, chromium)
	here.send(" 1002 ,1003", "to all")
	there.waitText(".received", "1001\nto all")
	here.waitText(".sent", "to 1002, 1003\nto all\n1002: acked · delivered\n1003: no_route · not delivered: nobody is logged in with this ID\n")
	here.waitFor(`/^[\d.]+ ms for all$/.test([...document.querySelectorAll(".sent .outcome")].at(-1).innerText)`)
	here.send("1002, ,", "to nobody else")
	there.waitText(".received", "1001\nto nobody else")
}

// The first page of an ID says so when it is logged in at another gateway.
func testKicked(t *testing.T, chromium context.Context) {
	relay := startRelay(t)
	first, second := openTab(t, chromium, startGateway(t, relay)), openTab(t, chromium, startGateway(t, relay))
	first.login("1001")
	second.login("1001")
	first.waitText("#notice", "1001 is logged out here: logged in elsewhere.")
	first.waitText("#state", "logged out")
	second.send("1001", "to myself")
	second.waitText(".received", "1001\nto myself")
}

// A reload finds its login again, until the user logs out. Spaces around an ID are not part of it.
func testReload(t *testing.T, chromium context.Context) {
	url := startGateway(t, startRelay(t))
	p := openTab(t, chromium, url)
	p.login(" 1001 ")
	p.do(chromedp.Navigate(url))
	p.waitText("#state", "connected")
	p.waitText("#me", "1001")
	p.send("1001", "to myself")
	p.waitText(".received", "1001\nto myself")
	p.do(chromedp.Click(chromedp.CSS("#logout")))
	p.waitText("#state", "logged out")
	p.do(chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("#login")))
}

// The newest message stays in view when the page becomes lower, as it does for the keyboard of a
// phone, and when what is known of the message grows. A user who has scrolled up is left where they
// are.
func testNewestInView(t *testing.T, chromium context.Context) {
	p := openTab(t, chromium, startGateway(t, startRelay(t)), chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile))
	p.login("1001")
	const inView = `(r => r.bottom <= document.querySelector("#log").getBoundingClientRect().bottom)([...document.querySelectorAll(".received")].at(-1).getBoundingClientRect())`
	for i := range 12 {
		p.send("1001", fmt.Sprintf("message %d", i))
		p.waitText(".received", fmt.Sprintf("message %d", i))
	}
	p.waitFor(inView)
	p.do(chromedp.EmulateViewport(360, 360, chromedp.EmulateMobile))
	p.waitFor(`innerHeight == 360`)
	p.waitFor(inView)
	p.waitFor(`(log.scrollTop = 0, !following) || !following`)
	get(t, strings.TrimSuffix(p.url(), "/")+"/send", "from", "1001", "to", "1001", "msg", "from elsewhere")
	p.waitFor(`document.querySelector("#log").innerText.includes("from elsewhere")`)
	p.waitFor(`log.scrollTop == 0`)
}

// While the relay is away the page says that it is reconnecting, and then goes on.
func testRelayRestarts(t *testing.T, chromium context.Context) {
	relay := startRelay(t)
	url := startGateway(t, relay)
	here, there := openTab(t, chromium, url), openTab(t, chromium, startGateway(t, relay))
	here.login("1001")
	there.login("1002")
	relay.Kill()
	here.waitText("#state", "reconnecting to the relay")
	there.waitText("#state", "reconnecting to the relay")
	if err := relay.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	here.waitText("#state", "connected")
	there.waitText("#state", "connected")
	for !get(t, url+"/online", "clientId", "1002").Online[0].Online { // its gateway binds it again
	}
	here.send("1002", "still there?")
	there.waitText(".received", "1001\nstill there?")
	here.waitText(".sent .outcome", "acked")
}

// On a phone nothing is wider than the screen, a dark page is dark and a light one light.
func testPhone(t *testing.T, chromium context.Context) {
	phone := openTab(t, chromium, startGateway(t, startRelay(t)), scheme("dark"), chromedp.EmulateViewport(360, 640, chromedp.EmulateMobile))
	const fits = `document.documentElement.scrollWidth <= 360 && innerWidth == 360`
	phone.waitFor(fits)
	phone.login("1001")
	phone.send("1001", strings.Repeat("wide", 100))
	phone.waitText(".received", "widewide")
	phone.waitFor(fits)
	phone.waitFor(`getComputedStyle(document.body).backgroundColor == "rgb(17, 22, 20)"`)
	phone.do(scheme("light"))
	phone.waitFor(`getComputedStyle(document.body).backgroundColor == "rgb(244, 245, 243)"`)
}

// Text, and the edges of what can be used, stand out from what is behind them, as WCAG 2.2 level AA
// wants it: 4.5 to 1, and 3 to 1.
func testContrast(t *testing.T, chromium context.Context) {
	p := openTab(t, chromium, startGateway(t, startRelay(t)))
	const ratio = `(() => {
		const light = name => {
			document.body.style.color = "var(" + name + ")";
			const linear = getComputedStyle(document.body).color.match(/\d+/g).map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
			return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2] + .05;
		};
		const a = light(%s), b = light(%s);
		return Math.max(a, b) / Math.min(a, b);
	})()`
	for _, name := range []string{"light", "dark"} {
		p.do(scheme(name))
		for _, pair := range []struct {
			front, behind string
			least         float64
		}{
			{"--ink", "--ground", 4.5}, {"--ink", "--sheet", 4.5}, {"--ink", "--mine", 4.5}, {"--faint", "--ground", 4.5}, {"--faint", "--sheet", 4.5},
			{"--good", "--sheet", 4.5}, {"--bad", "--sheet", 4.5}, {"--unsure", "--sheet", 4.5}, {"--unsure", "--ground", 4.5}, {"--bad", "--alert", 4.5},
			{"--on-accent", "--accent", 4.5}, {"--edge", "--ground", 3}, {"--edge", "--sheet", 3}, {"--accent", "--ground", 3},
		} {
			got, err := chromedp.Run(p.ctx, chromedp.Evaluate[float64](fmt.Sprintf(ratio, quote(pair.front), quote(pair.behind))))
			if err != nil {
				t.Fatal(err)
			}
			if got < pair.least {
				t.Errorf("%s: %s on %s is %.1f to 1, want %v", name, pair.front, pair.behind, got, pair.least)
			}
		}
	}
}

// scheme makes a page think that its user likes "dark" or "light".
func scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	})
}

// testScreenshot takes the picture in README.md: two pages that talk, one in the light and one on a
// phone in the dark.
func testScreenshot(t *testing.T, chromium context.Context) {
	relay := startRelay(t)
	desk := openTab(t, chromium, startGateway(t, relay), scheme("light"), chromedp.EmulateViewport(640, 560))
	phone := openTab(t, chromium, startGateway(t, relay), scheme("dark"), chromedp.EmulateViewport(360, 560, chromedp.EmulateMobile))
	desk.login("1001")
	phone.login("1002")
	desk.send("1002", "Good morning!")
	phone.waitText(".received", "Good morning!")
	phone.send("1001", "Good morning. Coffee at ten?")
	desk.waitText(".received", "Coffee at ten?")
	desk.send("1002, 1003", "Ten it is. Whoever is in, come along.")
	phone.waitText(".received", "Ten it is.")
	desk.waitText(".sent .outcome", "ms for all")
	phone.waitText(".sent .outcome", "acked")

	const gap = 20
	both := image.NewNRGBA(image.Rect(0, 0, 640+gap+360, 560))
	for at, p := range map[int]*tab{0: desk, 640 + gap: phone} {
		shot, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(shot))
		if err != nil {
			t.Fatal(err)
		}
		draw.Draw(both, img.Bounds().Add(image.Pt(at, 0)), img, image.Point{}, draw.Src)
	}
	if *screenshot == "" {
		return
	}
	var file bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := errors.Join(encoder.Encode(&file, both), os.WriteFile(*screenshot, file.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}
