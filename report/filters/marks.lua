-- What each format needs beyond Pandoc's own: verdict words in their colours, remarks, line breaks in table cells,
-- animations, and the place of the bibliography.

-- Dark enough for text on white, apart from one another for every common colour vision; the word itself says it in print.
local COLOUR = {
  ["reproduced"] = "00684A",
  ["partly"] = "00568A",
  ["not reproduced"] = "A33B00",
  ["artefact"] = "8A3F73",
  ["not testable here"] = "595959",
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
  return FORMAT == "html5" and pandoc.Div(figure.content .. figure.caption.long, { class = "animation" }) or {}
end

function Div(div)
  if div.identifier == "refs" and FORMAT == "latex" then
    return pandoc.RawBlock("latex", "\\bibliography{references}")
  end
end
