-- What each format needs beyond Pandoc's own: verdict words in their colours, remarks, powers of ten, line breaks in table
-- cells, long tables, animations, and the place of the bibliography.

-- Dark enough for text on white, apart from one another for every common colour vision; the word itself says it in print.
local COLOUR = {
  ["reproduced"] = "00684A",
  ["partly"] = "00568A",
  ["not reproduced"] = "A33B00",
  ["artefact"] = "8A3F73",
  ["undecided"] = "595959",
  ["not run"] = "595959",
}

local function wrap(before, content, after)
  local out = pandoc.List({ pandoc.RawInline(FORMAT, before) })
  out:extend(content)
  out:insert(pandoc.RawInline(FORMAT, after))
  return out
end

local function coloured(span, colour)
  if FORMAT == "typst" then
    return wrap('#text(fill: rgb("#' .. colour .. '"))[', span.content, "]")
  elseif FORMAT == "latex" then
    return wrap("\\textcolor[HTML]{" .. colour .. "}{", span.content, "}")
  end
  span.attributes.style = "color: #" .. colour
  return span
end

function Span(span)
  if span.classes:includes("verdict") then
    local colour = COLOUR[pandoc.utils.stringify(span)]
    span.content = { pandoc.Strong(span.content) }
    return coloured(span, colour)
  elseif span.classes:includes("remark") then
    return coloured(span, "595959")
  end
end

-- Computed numbers write powers as 10⁻⁴, which fonts set too small or not at all.
local RAISED = { ["⁻"] = "−", ["⁰"] = "0", ["¹"] = "1", ["²"] = "2", ["³"] = "3", ["⁴"] = "4", ["⁵"] = "5", ["⁶"] = "6", ["⁷"] = "7", ["⁸"] = "8", ["⁹"] = "9" }

function Str(element)
  local out, run = pandoc.List(), { text = "" }
  for _, code in utf8.codes(element.text) do
    local character = utf8.char(code)
    local raised = RAISED[character] ~= nil
    if raised ~= run.raised then
      run = { text = "", raised = raised }
      out:insert(run)
    end
    run.text = run.text .. (RAISED[character] or character)
  end
  return out:map(function(part) return part.raised and pandoc.Superscript(part.text) or pandoc.Str(part.text) end)
end

-- <br>, the only way to break a line in a cell of a Markdown table.
function RawInline(element)
  return element.format == "html" and element.text:match("^<br */?>$") and pandoc.LineBreak() or nil
end

-- HTML shows vector figures as SVG. Only HTML can move: animations stand there alone, without a number.
function Figure(figure)
  local moves = false
  figure = figure:walk({
    Image = function(image)
      moves = moves or image.src:match("%.gif$")
      if FORMAT == "html5" then
        image.src = image.src:gsub("%.pdf$", ".svg")
        return image
      end
    end,
  })
  if not moves then
    return figure
  end
  local caption = pandoc.Inlines({ pandoc.Strong("Animation."), pandoc.Space() })
  caption:extend(pandoc.utils.blocks_to_inlines(figure.caption.long))
  return FORMAT == "html5" and pandoc.Div(figure.content .. { pandoc.Para(caption) }, { class = "animation" }) or {}
end

-- Only a long table may break across pages, and inside of a row only one whose rows are tall. Typst keeps all others together;
-- LaTeX needs to be told how much room they take.
local LONG, ROWS, TALL = 2400, 28, 300 -- characters: two thirds of a page; rows of few characters: half a page; characters of a row, in the mean

function Table(tbl)
  local length, rows = #pandoc.utils.stringify(tbl), #tbl.bodies[1].body
  local long = length > LONG or rows > ROWS
  if FORMAT == "typst" and long then
    return { pandoc.RawBlock("typst", "#long(" .. tostring(length > TALL * rows) .. ")["), tbl, pandoc.RawBlock("typst", "]") }
  elseif FORMAT == "latex" and not long then
    local lines = rows + length // 60 + 5
    return { pandoc.RawBlock("latex", "\\Needspace{" .. lines .. "\\baselineskip}"), tbl }
  end
end

-- Only LaTeX knows what to do with \Bigl( and with the bars of |H|.
function Math(math)
  if FORMAT ~= "latex" then
    math.text = math.text
      :gsub("\\[Bb]igg?l%f[%A]", "\\left")
      :gsub("\\[Bb]igg?r%f[%A]", "\\right")
      :gsub("|(\\?%a+)|", "\\left|%1\\right|")
    return math
  end
end

function Div(div)
  if div.identifier == "refs" and FORMAT == "latex" then
    return pandoc.RawBlock("latex", "\\bibliography{references}")
  end
end
