package bench

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A Picture is a plot of lines. It is drawn twice, for light and dark pages.
type Picture struct {
	Name  string // of the files
	Title string
	X, Y  string // what the axes show
	LogY  bool
	Lines []line // the first is ampauth
}

type line struct {
	Name string
	X, Y []float64
}

// A theme is the colours of a page.
type theme struct {
	name             string
	page, ink, faint color.Color
	lines            []color.Color
}

// The lines are Okabe and Ito's, which people who see colours otherwise can tell
// apart, and two more, brightened for dark pages.
var themes = []theme{
	{
		"light", color.White, color.Gray{40}, color.Gray{225},
		[]color.Color{rgb(0x0072b2), rgb(0xd55e00), rgb(0x009e73), rgb(0xcc79a7), rgb(0xe69f00), rgb(0x555555), rgb(0x56b4e9), rgb(0x8b4513), rgb(0x7f7f00)},
	},
	{
		"dark", rgb(0x0d1117), color.Gray{215}, color.Gray{55},
		[]color.Color{rgb(0x58b6f2), rgb(0xff8c42), rgb(0x35d0a0), rgb(0xe59ac6), rgb(0xf2c14e), rgb(0xaaaaaa), rgb(0x9ad7ff), rgb(0xc49c94), rgb(0xbcbd22)},
	},
}

func rgb(hex uint32) color.Color {
	return color.RGBA{uint8(hex >> 16), uint8(hex >> 8), uint8(hex), 255}
}

// file is the name of the drawing for a theme.
func (p Picture) file(t theme) string { return p.Name + "-" + t.name + ".svg" }

// markdown shows the drawing that suits the reader's page.
func (p Picture) markdown(dir string) string {
	light, dark := dir+"/"+p.file(themes[0]), dir+"/"+p.file(themes[1])
	return fmt.Sprintf("<picture>\n  <source media=\"(prefers-color-scheme: dark)\" srcset=\"%s\">\n  <img alt=\"%s\" src=\"%s\">\n</picture>", dark, p.Title, light)
}

// draw writes p into dir for each theme.
func (p Picture) draw(dir string) error {
	for _, t := range themes {
		if err := p.drawFor(t, filepath.Join(dir, p.file(t))); err != nil {
			return fmt.Errorf("plot %s: %w", p.Name, err)
		}
	}
	return nil
}

// drawFor writes p into a file in the colours of t.
func (p Picture) drawFor(t theme, path string) error {
	drawing, legend := plot.New(), plot.NewLegend()
	drawing.BackgroundColor = t.page
	drawing.Title.Text, drawing.X.Label.Text, drawing.Y.Label.Text = p.Title, p.X, p.Y
	drawing.Title.Padding = vg.Points(8)
	for _, style := range []*font.Font{
		&drawing.Title.TextStyle.Font, &drawing.X.Label.TextStyle.Font, &drawing.Y.Label.TextStyle.Font,
		&drawing.X.Tick.Label.Font, &drawing.Y.Tick.Label.Font, &legend.TextStyle.Font,
	} {
		style.Variant = "Sans"
	}
	drawing.Title.TextStyle.Color, legend.TextStyle.Color = t.ink, t.ink
	legend.TextStyle.Font.Size = vg.Points(9)
	legend.Padding = vg.Points(4)
	for _, axis := range []*plot.Axis{&drawing.X, &drawing.Y} {
		axis.Color, axis.Tick.Color = t.ink, t.ink
		axis.Label.TextStyle.Color, axis.Tick.Label.Color = t.ink, t.ink
	}
	if p.LogY {
		drawing.Y.Scale, drawing.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = t.faint, t.faint
	drawing.Add(grid)
	drawn := make([]*plotter.Line, len(p.Lines))
	for i, l := range p.Lines {
		points := make(plotter.XYs, len(l.X))
		for j := range points {
			points[j].X, points[j].Y = l.X[j], l.Y[j]
		}
		curve, err := plotter.NewLine(points)
		if err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
		curve.Color, curve.Width = t.lines[i%len(t.lines)], vg.Points(1.2)
		if i == 0 {
			curve.Width = vg.Points(2.4)
		}
		legend.Add(l.Name, curve)
		drawn[i] = curve
	}
	for _, curve := range slices.Backward(drawn) { // ampauth lies on top
		drawing.Add(curve)
	}

	if !p.LogY {
		drawing.Y.Min = 0
	}

	canvas := vgsvg.NewWith(vgsvg.UseWH(9*vg.Inch, 4*vg.Inch))
	page := draw.New(canvas)
	page.SetColor(t.page)
	page.Fill(page.Rectangle.Path())
	beside := legend.Rectangle(page).Size().X + vg.Points(40) // the reader's font may be wider
	legend.Top, legend.Left = true, true
	legend.Draw(draw.Crop(page, page.Size().X-beside+vg.Points(12), 0, 0, -vg.Points(30)))
	drawing.Draw(draw.Crop(page, 0, -beside, 0, 0))
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	// Browsers that lack the font would take one with serifs.
	family := []byte("font-family:Liberation Sans")
	return os.WriteFile(path, bytes.ReplaceAll(svg.Bytes(), family, append(family, ",Arial,Helvetica,sans-serif"...)), 0o644)
}
